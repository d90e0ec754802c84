// Adapters with the objectives over answers: packed pairs that share their prompt equal separate ones; the reference
// that the base computes together with the policy equals the one that it computes alone.

#include <gtest/gtest.h>

#include "tests/support/rollouts.h"
#include "tests/support/tiny_lora.h"
#include "train/objectives/policy_objective.h"
#include "train/objectives/reward_objective.h"

namespace colonnade {
namespace {

double metric_of(const Objective& objective, const LossSums& sums, const std::string& name) {
    const std::vector<Metric> metrics = objective.metrics(sums, Phase::training);
    const auto found = std::ranges::find(metrics, name, &Metric::first);
    return found == metrics.end() ? std::nan("") : std::get<double>(found->second);
}

class LoraStages : public testing::TestWithParam<DType> {
  protected:
    void SetUp() override {
        if (GetParam() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static bool on_gpu() { return GetParam() == DType::bf16; }
    static ModelConfig config(bool score = false) {
        ModelConfig c = on_gpu() ? small_config(Architecture::llama) : tiny_config(Architecture::llama);
        c.score_head = score;
        return c;
    }
    /// Relative to the Euclidean norm. bf16 rounds every activation; the position of an answer decides which way.
    static double bound() { return GetParam() == DType::f64 ? 1e-12 : GetParam() == DType::f32 ? 5e-6 : 0.03; }
    static std::unique_ptr<Learner> learner(bool score, std::shared_ptr<const Objective> objective,
                                            Reference reference = Reference::batches) {
        LoraSettings lora = lora_of({}, 8);
        lora.head = score;
        return lora_learner(config(score), GetParam(), lora, 2, 320,
                            {.objective = std::move(objective), .reference = reference});
    }
    static std::vector<Sample> pairs() {
        const int64_t vocab = config().vocab_size;
        return {tree(1, 30, {15, 40}, vocab), tree(2, 1, {1, 1}, vocab), tree(3, 90, {3, 2}, vocab),
                tree(4, 4, {70, 9}, vocab), tree(5, 17, {33, 64}, vocab)};
    }
    static std::vector<Batch> packed(const std::vector<Sample>& s) {
        return {make_batch({{&s[0], &s[1], &s[2]}, {&s[3]}}), make_batch({{&s[4]}})};
    }
    static std::vector<Batch> separate(const std::vector<Sample>& samples) {
        std::vector<Batch> batches;
        for (const Sample& sample : samples) {
            const Sample own = unshared(sample);
            batches.push_back(make_batch({{&own}}));
        }
        return batches;
    }
};

TEST_P(LoraStages, PackedPairsEqualSeparateOnes) {
    const auto lora = learner(false, sigmoid_objective());
    const std::vector<Sample> samples = pairs();
    std::vector<Batch> together = packed(samples), alone = separate(samples);
    for (size_t i = 0, at = 0; i < together.size(); ++i)
        for (size_t n = together[i].sequences.size() / 2; n > 0; --n, ++at) {
            alone[at].reference = {-20.0 - static_cast<double>(at), -30.0 + static_cast<double>(7 * at)};
            together[i].reference.insert(together[i].reference.end(), alone[at].reference.begin(),
                                         alone[at].reference.end());
        }
    const auto a = gradients_of(*lora, together, 5);
    const LossSums loss = lora->loss();
    const auto b = gradients_of(*lora, alone, 5);
    EXPECT_EQ(loss.weight, 5);
    EXPECT_NEAR(loss.nll, lora->loss().nll, bound() * lora->loss().nll);
    EXPECT_LE(distance(a, b), bound());
}

TEST_P(LoraStages, PackedRankingsEqualSeparateOnes) {
    const auto lora = learner(true, std::make_shared<RewardObjective>(RankingKind::pairwise, 0.01));
    std::vector<Sample> samples = pairs();
    samples[1] = tree(6, 12, {5, 20, 1, 9}, config().vocab_size);
    const auto a = gradients_of(*lora, packed(samples), 5);
    const LossSums loss = lora->loss();
    const auto b = gradients_of(*lora, separate(samples), 5);
    EXPECT_NEAR(loss.nll, lora->loss().nll, bound() * lora->loss().nll);
    EXPECT_LE(distance(a, b), bound());
}

TEST_P(LoraStages, TheBaseWithThePolicyEqualsTheBaseAlone) {
    const auto online = learner(false, sigmoid_objective(), Reference::base),
               given = learner(false, sigmoid_objective());
    const auto base = tiny_learner(config(), GetParam(), 2, 320, {.objective = sigmoid_objective()});
    const std::vector<Sample> samples = pairs();
    const std::vector<Batch> bare = packed(samples);
    std::vector<Batch> batches = bare;
    for (Batch& batch : batches) batch.reference = base->measure(base->context(), batch);
    const auto expected = gradients_of(*given, batches, 5);
    const LossSums loss = given->loss();
    EXPECT_EQ(gradients_of(*online, bare, 5), expected);
    EXPECT_EQ(online->loss().nll, loss.nll);
    for (size_t i = 0; i < bare.size(); ++i)
        EXPECT_EQ(online->evaluate(online->context(), bare[i]).nll, given->evaluate(given->context(), batches[i]).nll);
    // The policy differs from the reference; with fresh adapters they are equal.
    EXPECT_GT(std::abs(loss.mean() - std::log(2)), 1e-3);
    online->fill_weights([&](const Tensor& flat) { initialize(online->parameters(), {.seed = 1}, flat); });
    gradients_of(*online, bare, 5);
    EXPECT_NEAR(online->loss().mean(), std::log(2), 1e-12);
}

TEST_P(LoraStages, TheBaseAsThePolicysReferenceEqualsTheBaseAlone) {
    const auto objective = std::make_shared<PolicyObjective>(PolicyOptions{.settings = {.beta = 0.2}});
    const auto online = learner(false, objective, Reference::base), given = learner(false, objective);
    const auto base = tiny_learner(config(), GetParam(), 2, 320, {.objective = objective});
    const std::vector<Sample> samples = random_rollouts(5, config().vocab_size);
    const std::vector<Batch> bare = {make_batch({{&samples[0], &samples[1], &samples[4]}, {&samples[8]}})};
    std::vector<Batch> batches = bare;
    set_reference(batches[0], Answers::policy, base->measure(base->context(), batches[0]));
    const double total = objective->total(bare[0]);
    const auto expected = gradients_of(*given, batches, total);
    const LossSums loss = given->loss();
    EXPECT_EQ(gradients_of(*online, bare, total), expected);
    EXPECT_EQ(online->loss().numbers(), loss.numbers());
    const auto kl = [&] { return metric_of(*objective, online->loss(), "kl"); };
    EXPECT_GT(kl(), 1e-3);
    // Fresh adapters add nothing.
    online->fill_weights([&](const Tensor& flat) { initialize(online->parameters(), {.seed = 1}, flat); });
    gradients_of(*online, bare, total);
    EXPECT_NEAR(kl(), 0, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Devices, LoraStages, testing::Values(DType::f64, DType::f32, DType::bf16),
                         [](const auto& test) { return std::string(name_of(test.param)); });

}  // namespace
}  // namespace colonnade
