// Steps of stage kto equal a computation by hand in double: every answer alone gives its log-probability and its gradient,
// the formula does the rest. In packs that share prompts, and in any number of micro-steps; for every family.

#include <gtest/gtest.h>

#include "tests/support/answer_trees.h"
#include "tests/support/expect_error.h"
#include "tests/support/step_outcome.h"
#include "train/objectives/unpaired_objective.h"

namespace colonnade {
namespace {

constexpr size_t answers = 6;

/// Answers, three of them to one prompt, and mismatched answers behind the same prompts.
struct LabelledAnswers {
    std::vector<Sample> own, mismatched;
    std::vector<double> own_reference, mismatched_reference;

    explicit LabelledAnswers(int64_t vocab, const std::vector<float>& labels) {
        const std::vector<int64_t> prompts = {30, 1, 30, 50, 4, 30}, lengths = {15, 1, 30, 3, 20, 9};
        for (size_t i = 0; i < answers; ++i) {
            const uint64_t prompt = prompts[i] == 30 ? 7 : i;  // of the same seed: the same prompt
            const Sample with = tree(prompt, prompts[i], {lengths[i], lengths[(i + 1) % answers]}, vocab);
            for (const size_t number : {0u, 1u}) {
                Sample sample = alone(with, number);
                for (int32_t& token : sample.sequences[0].tokens)  // answers of the same seed begin alike
                    if (&token - sample.sequences[0].tokens.data() >= std::max<int64_t>(prompts[i], 1))
                        token = static_cast<int32_t>((token + static_cast<int64_t>(i * i + 3 * number)) % vocab);
                sample.sequences[0].advantage = number == 0 ? labels[i] : 0;
                (number == 0 ? own : mismatched).push_back(sample);
            }
        }
    }
};

Batch batch_of(const std::vector<Sample>& samples, const std::vector<double>& reference, size_t begin, size_t end) {
    std::vector<const Sample*> pack;
    for (size_t i = begin; i < end; ++i) pack.push_back(&samples[i]);
    Batch batch = make_batch({pack}, {.sharing = Sharing::row});
    if (!reference.empty())
        batch.reference = {reference.begin() + static_cast<std::ptrdiff_t>(begin),
                           reference.begin() + static_cast<std::ptrdiff_t>(end)};
    return batch;
}

/// `cuts`: where micro-steps end, but for the last.
Outcome step(Learner& learner, const LabelledAnswers& data, std::vector<size_t> cuts = {}) {
    const Context ctx = learner.context();
    cuts.insert(cuts.begin(), 0);
    cuts.push_back(answers);
    learner.begin_step();
    learner.begin_mismatched();
    if (learner.objective().needs_mismatched())
        for (size_t m = 0; m + 1 < cuts.size(); ++m)
            learner.add_mismatched(ctx, batch_of(data.mismatched, data.mismatched_reference, cuts[m], cuts[m + 1]));
    learner.end_mismatched(ctx, answers);
    for (size_t m = 0; m + 1 < cuts.size(); ++m)
        learner.accumulate(ctx, batch_of(data.own, data.own_reference, cuts[m], cuts[m + 1]), {.total = answers});
    return {learner.loss(), numbers_of(learner, learner.gradients())};
}

class UnpairedPacking : public testing::TestWithParam<std::tuple<Architecture, DType>> {
  protected:
    void SetUp() override {
        if (dtype() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static DType dtype() { return std::get<1>(GetParam()); }
    static ModelConfig config() {
        const Architecture architecture = std::get<0>(GetParam());
        return dtype() == DType::bf16 ? small_config(architecture, false) : tiny_config(architecture, false);
    }
    static double bound() { return dtype() == DType::f64 ? 1e-12 : dtype() == DType::f32 ? 5e-6 : 0.03; }
    static std::unique_ptr<Learner> learner(const UnpairedSettings& settings,
                                            Reference reference = Reference::batches) {
        return tiny_learner(config(), dtype(), 1, 640,
                            {.objective = std::make_shared<UnpairedObjective>(settings), .reference = reference});
    }
};

/// What the formula makes of every answer alone, by the language model objective.
class ByHand {
  public:
    ByHand(const ModelConfig& config, DType dtype) : language_(tiny_learner(config, dtype, 1, 320)) {}

    double logp(const Sample& sample) {
        std::vector<double> nll;
        language_->evaluate(language_->context(), make_batch({{&sample}}), &nll);
        double sum = 0;
        for (const double n : nll) sum -= n;
        return sum;
    }
    double z(const LabelledAnswers& data) {
        double sum = 0;
        for (size_t i = 0; i < answers; ++i) sum += logp(data.mismatched[i]) - data.mismatched_reference[i];
        return std::max(0.0, sum / answers);
    }
    Outcome step(const LabelledAnswers& data, const UnpairedSettings& settings, double z) {
        Outcome expected;
        std::vector<std::pair<size_t, double>> falls, rises;
        for (size_t i = 0; i < answers; ++i) {
            const bool good = data.own[i].sequences[0].advantage > 0;
            const double l = logp(data.own[i]), s = l - data.own_reference[i];
            const ValueAndSlope loss =
                unpaired_loss(settings, good ? AnswerLabel::desirable : AnswerLabel::undesirable, s, z);
            expected.sums.nll += loss.value;
            expected.sums.weight += 1;
            expected.sums.correct += good;
            for (const auto& [at, value] : {std::pair(good ? 0u : 1u, settings.beta * s), {good ? 2u : 3u, l}, {4u, z}})
                expected.sums.more[at] += value;
            (loss.slope < 0 ? falls : rises).emplace_back(i, answers / std::abs(loss.slope));
        }
        expected.gradients = gradient(data, falls);
        const std::vector<double> other = gradient(data, rises);
        for (size_t i = 0; i < other.size(); ++i) expected.gradients[i] -= other[i];
        return expected;
    }

  private:
    std::vector<double> gradient(const LabelledAnswers& data, const std::vector<std::pair<size_t, double>>& totals) {
        language_->begin_step();
        if (totals.empty()) return std::vector<double>(static_cast<size_t>(language_->gradients().numel()));
        for (const auto& [i, total] : totals)
            language_->accumulate(language_->context(), make_batch({{&data.own[i]}}), {.total = total});
        return numbers_of(*language_, language_->gradients());
    }
    std::unique_ptr<Learner> language_;
};

void expect_equal(const Outcome& found, const Outcome& expected, double bound) {
    EXPECT_EQ(found.sums.weight, expected.sums.weight);
    EXPECT_EQ(found.sums.correct, expected.sums.correct);
    EXPECT_NEAR(found.sums.nll, expected.sums.nll, bound * expected.sums.nll);
    for (size_t i = 0; i < found.sums.more.size(); ++i)
        EXPECT_NEAR(found.sums.more[i], expected.sums.more[i], bound * 500) << i;
    EXPECT_LE(distance(found.gradients, expected.gradients), bound);
}

TEST_P(UnpairedPacking, StepsEqualAComputationByHand) {
    const UnpairedSettings kto{UnpairedLoss::kto, 0.2, 1.5, 0.5}, apo{UnpairedLoss::apo_zero_unpaired, 0.2, 1.5, 0.5};
    const std::vector<float> both = {1, -1, -1, 1, 1, -1}, good(answers, 1), bad(answers, -1);
    struct Case {
        const char* name;
        UnpairedSettings settings;
        std::vector<float> labels;
        double drift;  ///< of the mismatched answers from their reference
    };
    for (const auto& [name, settings, labels, drift] : {Case{"kto", kto, both, 2.5},
                                                        {"z at 0", kto, both, -4},
                                                        {"good", kto, good, 1},
                                                        {"bad", kto, bad, 1},
                                                        {"apo", apo, both, 2.5}}) {
        SCOPED_TRACE(name);
        ByHand hand(config(), dtype());
        LabelledAnswers data(config().vocab_size, labels);
        for (size_t i = 0; i < answers; ++i) {
            const double shift = static_cast<double>(i) - 2.5;
            data.own_reference.push_back(std::floor(hand.logp(data.own[i])) - shift);
            data.mismatched_reference.push_back(std::round(hand.logp(data.mismatched[i])) - drift + 0.5 * shift);
        }
        const double z = settings.loss == UnpairedLoss::kto ? hand.z(data) : 0;
        EXPECT_EQ(z > 0.5, drift > 0 && settings.loss == UnpairedLoss::kto) << z;
        const Outcome expected = hand.step(data, settings, z);
        const auto policy = learner(settings);
        const Outcome found = step(*policy, data);
        expect_equal(found, expected, bound());
        for (const auto& cuts : {std::vector<size_t>{3}, {0, 1, 4, 4, 5}})
            expect_equal(step(*policy, data, cuts), found, dtype() == DType::f64 ? 1e-13 : bound());
        // Evaluation gives the same sums, by the z that it was given.
        policy->begin_mismatched();
        if (settings.loss == UnpairedLoss::kto)
            policy->add_mismatched(policy->context(), batch_of(data.mismatched, data.mismatched_reference, 0, answers));
        policy->end_mismatched(policy->context(), answers);
        LossSums evaluated;
        for (const size_t at : {0u, 2u})
            evaluated += policy->evaluate(policy->context(), batch_of(data.own, data.own_reference, at, at ? 6 : 2));
        expect_equal({evaluated, found.gradients}, found, bound());
    }
}

TEST_P(UnpairedPacking, SharedPromptsAreThereOnce) {
    const LabelledAnswers data(config().vocab_size, {1, -1, -1, 1, 1, -1});
    for (const std::vector<Sample>& samples : {data.own, data.mismatched}) {
        int64_t apart = 0;
        for (const Sample& sample : samples) apart += sample.length();
        EXPECT_LE(batch_of(samples, {}, 0, answers).real_tokens, apart - 60);
    }
}

TEST_P(UnpairedPacking, TheBaseMayComputeTheReference) {
    const UnpairedSettings settings{UnpairedLoss::kto, 0.2, 1.5, 0.5};
    LabelledAnswers data(config().vocab_size, {1, -1, -1, 1, 1, -1});
    const auto given = learner(settings), online = learner(settings, Reference::base);
    const Outcome computed = step(*online, data, {3});  // the base is the policy itself here
    data.own_reference = given->measure(given->context(), batch_of(data.own, {}, 0, answers));
    data.mismatched_reference = given->measure(given->context(), batch_of(data.mismatched, {}, 0, answers));
    expect_equal(computed, step(*given, data), dtype() == DType::bf16 ? 0.03 : 5e-6);
    EXPECT_NEAR(computed.sums.mean(), 0.5, dtype() == DType::bf16 ? 0.05 : 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Families, UnpairedPacking,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::mistral,
                                                          Architecture::qwen2, Architecture::qwen3),
                                          testing::Values(DType::f32, DType::f64, DType::bf16)),
                         name_of_case);

TEST(UnpairedBatches, AreRefusedIfTheyAreNoLabelledAnswers) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const auto learner =
        tiny_learner(config, DType::f64, 1, 64, {.objective = std::make_shared<UnpairedObjective>(UnpairedSettings{})});
    const auto evaluate = [&](const Sample& sample) {
        Batch batch = make_batch({{&sample}});
        batch.reference.assign(batch.sequences.size(), -3.0);
        learner->evaluate(learner->context(), batch);
    };
    Sample pair = tree(1, 4, {3, 5}, config.vocab_size), answer = alone(pair, 0);
    expect_error(Exit::data, "a batch of 1 samples has 2 answers", [&] { evaluate(pair); });
    expect_error(Exit::internal, "has the label -1", [&] { evaluate(answer); });
    answer.sequences[0].advantage = 0.3f;
    expect_error(Exit::data, "has the advantage 0.3", [&] { evaluate(answer); });
    answer.sequences[0].advantage = 1;
    evaluate(answer);
    answer.sequences[0].learned.clear();
    expect_error(Exit::data, "has no token with a loss", [&] { evaluate(answer); });
}

TEST(UnpairedMetrics, LeaveOutWhatHasNoAnswers) {
    const UnpairedObjective kto({.loss = UnpairedLoss::kto}), apo({.loss = UnpairedLoss::apo_zero_unpaired});
    const auto names = [](const UnpairedObjective& objective, const LossSums& sums) {
        std::string all;
        for (const auto& metric : objective.metrics(sums, Phase::training)) all += metric.first + " ";
        return all;
    };
    const LossSums none, good{.nll = 1, .weight = 3, .correct = 3}, bad{.nll = 1, .weight = 3, .correct = 0};
    EXPECT_EQ(names(kto, none), "kl rewards/chosen rewards/rejected rewards/margins logps/chosen logps/rejected ");
    EXPECT_EQ(names(kto, good), "kl rewards/chosen logps/chosen ");
    EXPECT_EQ(names(apo, bad), "rewards/rejected logps/rejected ");
    EXPECT_EQ(kto.untrained_loss(), 0.5);
    EXPECT_FALSE(UnpairedObjective({.desirable_weight = 2}).untrained_loss());
}

}  // namespace
}  // namespace colonnade
