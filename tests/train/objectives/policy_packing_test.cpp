// Packed answers that share what they begin with equal separate ones, in loss, every gradient and every metric of stage
// grpo, for all its losses. Also the gradients against central differences in double, and the reference of the base.

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"
#include "tests/support/policy_names.h"
#include "tests/support/rollouts.h"
#include "tests/support/step_outcome.h"
#include "train/objectives/policy_objective.h"

namespace colonnade {
namespace {

std::shared_ptr<const Objective> policy(const PolicySettings& settings) {
    return std::make_shared<PolicyObjective>(
        PolicyOptions{.settings = settings, .max_completion_length = 50, .temperature = 0.9});
}

/// Calls check(settings) for every loss at every level that it has.
template <typename Check>
void for_each_loss(Check&& check) {
    for (const auto& [name, loss] : losses)
        for (const auto& [level_name, level] : levels) {
            const bool fits = loss == PolicyLoss::rloo    ? level == RatioLevel::sequence_sum
                              : loss == PolicyLoss::cispo ? level == RatioLevel::token
                                                          : level != RatioLevel::sequence_sum;
            if (!fits) continue;
            SCOPED_TRACE(name + " " + level_name);
            check(PolicySettings{.loss = loss,
                                 .ratio = level,
                                 .epsilon_high = loss == PolicyLoss::cispo ? 1.2 : 0.25,
                                 .beta = loss == PolicyLoss::rloo ? 0 : 0.1});
        }
}

double tokens_of(const std::vector<Batch>& batches) {
    double tokens = 0;
    for (const Batch& batch : batches) tokens += static_cast<double>(batch.real_tokens);
    return tokens;
}

void expect_same_metrics(const Objective& objective, const LossSums& found, const LossSums& expected, double bound) {
    const std::vector<Metric> a = objective.metrics(found, Phase::training),
                              b = objective.metrics(expected, Phase::training);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
        const double x = std::get<double>(a[i].second), y = std::get<double>(b[i].second);
        EXPECT_NEAR(x, y, bound * std::max(1.0, std::abs(y))) << b[i].first;
    }
}

class PolicyPacking : public testing::TestWithParam<std::tuple<Architecture, DType>> {
  protected:
    void SetUp() override {
        if (dtype() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static DType dtype() { return std::get<1>(GetParam()); }
    static std::unique_ptr<Learner> learner_of(std::shared_ptr<const Objective> objective,
                                               Reference reference = Reference::batches) {
        const Architecture architecture = std::get<0>(GetParam());
        const ModelConfig config = dtype() == DType::bf16 ? small_config(architecture) : tiny_config(architecture);
        LearnerOptions options =
            tiny_options(dtype(), 2, 320, {.objective = std::move(objective), .reference = reference});
        options.density = {.terms = 2, .sequences = 1};
        auto learner = std::make_unique<Learner>(config, options);
        randomize(*learner, 1);
        return learner;
    }
    static double bound() { return dtype() == DType::f64 ? 1e-12 : dtype() == DType::f32 ? 2e-5 : 0.05; }
};

TEST_P(PolicyPacking, SharedAnswersEqualSeparateOnes) {
    for_each_loss([&](const PolicySettings& settings) {
        const auto learner = learner_of(policy(settings));
        const Objective& objective = learner->objective();
        std::vector<Sample> samples = random_rollouts(3, learner->config().vocab_size);
        give_logps(samples, *learner, 5);
        const std::vector<Batch> together = packed(samples), apart = separate(samples);
        const double total = total_of(objective, apart);
        EXPECT_EQ(total_of(objective, together), total);
        EXPECT_LT(tokens_of(together), 0.7 * tokens_of(apart));
        const Outcome found = run(*learner, together, total), expected = run(*learner, apart, total);
        EXPECT_EQ(found.sums.weight, expected.sums.weight);
        EXPECT_NEAR(found.sums.mean(), expected.sums.mean(), bound() * std::max(1.0, std::abs(expected.sums.mean())));
        EXPECT_LE(distance(found.gradients, expected.gradients), bound());
        // A ratio that rounds to the other side of a bound is one of hundreds.
        expect_same_metrics(objective, found.sums, expected.sums, dtype() == DType::f64 ? 1e-12 : bound());
        // Evaluation has the loss and the metrics of training.
        LossSums evaluated;
        for (const Batch& batch : together) evaluated += learner->evaluate(learner->context(), batch);
        EXPECT_NEAR(evaluated.mean(), found.sums.mean(), 1e-6 * std::max(1.0, std::abs(found.sums.mean())));
        expect_same_metrics(objective, evaluated, found.sums, 1e-6);
    });
}

TEST_P(PolicyPacking, TermsAreMeasuredInTheirOrder) {
    const auto learner = learner_of(policy({}));
    const std::vector<Sample> samples = random_rollouts(4, learner->config().vocab_size);
    std::vector<double> found, expected;
    for (const Batch& batch : packed(samples))
        for (const double logp : learner->measure(learner->context(), batch)) found.push_back(logp);
    for (const Batch& batch : separate(samples))
        for (const double logp : learner->measure(learner->context(), batch)) expected.push_back(logp);
    EXPECT_LE(distance(found, expected), bound());
}

/// With the log-probabilities of the policy itself as the old ones, every ratio is 1.
TEST_P(PolicyPacking, TheFirstStepOfTheOldPolicyHasRatiosOfOne) {
    for_each_loss([&](PolicySettings settings) {
        settings.beta = 0;
        const auto learner = learner_of(policy(settings));
        const std::vector<Sample> samples = random_rollouts(6, learner->config().vocab_size);
        std::vector<Batch> batches = packed(samples);
        const double total = total_of(learner->objective(), batches);
        const Outcome without = run(*learner, batches, total);
        for (Batch& batch : batches) {
            const std::vector<double> logps = learner->measure(learner->context(), batch);
            batch.logps.old.assign(logps.begin(), logps.end());
        }
        const Outcome with = run(*learner, batches, total);
        // Old ones are in float32: a slope that differs by 1e-8 may round a gradient of bf16 logits the other way.
        EXPECT_LE(distance(with.gradients, without.gradients), dtype() == DType::bf16 ? 5e-3 : 2e-6);
        EXPECT_NEAR(with.sums.mean(), without.sums.mean(), 1e-5);
        EXPECT_EQ(learner->objective().misfit(with.sums), "");
        // Old log-probabilities of other text do not fit.
        for (Batch& batch : batches)
            for (float& old : batch.logps.old) old -= 1;
        EXPECT_NE(learner->objective().misfit(run(*learner, batches, total).sums).find("outside [0.8, 1.25]"),
                  std::string::npos);
    });
}

TEST_P(PolicyPacking, TheBaseAsReferenceEqualsAGivenOne) {
    PolicySettings settings{.beta = 0.3};
    const auto given = learner_of(policy(settings)), online = learner_of(policy(settings), Reference::base);
    std::vector<Sample> samples = random_rollouts(7, given->config().vocab_size);
    give_logps(samples, *given, 8);
    for (Sample& sample : samples) sample.sequences[0].logps.reference.clear();
    std::vector<Batch> batches = packed(samples);
    const double total = total_of(given->objective(), batches);
    const Outcome found = run(*online, batches, total);
    for (Batch& batch : batches) set_reference(batch, Answers::policy, given->measure(given->context(), batch));
    const Outcome expected = run(*given, batches, total);
    EXPECT_EQ(found.sums.numbers(), expected.sums.numbers());
    EXPECT_LE(distance(found.gradients, expected.gradients), dtype() == DType::bf16 ? 1e-3 : 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Families, PolicyPacking,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::qwen3),
                                          testing::Values(DType::f32, DType::f64, DType::bf16)),
                         name_of_case);

TEST(PolicyGradient, EqualsCentralDifferences) {
    const ModelConfig config = tiny_config(Architecture::llama);
    for_each_loss([&](const PolicySettings& settings) {
        if (settings.loss == PolicyLoss::cispo) return;  // its ratio is held constant
        const auto learner = tiny_learner(config, DType::f64, 2, 320, {.objective = policy(settings)});
        std::vector<Sample> samples = random_rollouts(9, config.vocab_size);
        samples.resize(12);
        give_logps(samples, *learner, 10);
        for (Sample& sample : samples) {  // an old one that is not known would move with the weights
            GivenLogps& given = sample.sequences[0].logps;
            if (given.old.empty()) given.old = given.reference;
            std::ranges::replace_if(
                given.old, [](float old) { return std::isnan(old); }, -1.5f);
        }
        const Batch batch = make_batch({{&samples[0], &samples[1], &samples[3]}, {&samples[6], &samples[11]}},
                                       {.sharing = Sharing::row});
        const double total = learner->objective().total(batch);
        learner->begin_step();
        learner->accumulate({}, batch, {.total = total});
        double* const w = learner->weights().as<double>();
        const double* const g = learner->gradients().as<double>();
        double largest = 0;
        for (int64_t i = 0; i < learner->gradients().numel(); ++i) largest = std::max(largest, std::abs(g[i]));
        EXPECT_GT(largest, 0);
        for (const Parameter& p : learner->parameters().all())
            for (int64_t i = 0; i < p.size(); i += std::max<int64_t>(1, p.size() / 4)) {
                double& x = w[p.begin + i];
                const double saved = x, h = 1e-6;
                const auto loss = [&](double at) {
                    x = at;
                    return learner->evaluate({}, batch).mean();
                };
                const double numeric = (loss(saved + h) - loss(saved - h)) / (2 * h);
                x = saved;
                EXPECT_NEAR(g[p.begin + i], numeric, 1e-6 * std::max(std::abs(numeric), largest)) << p.name;
            }
    });
}

TEST(PolicyObjective, CountsAnswersWithoutATerm) {
    const ModelConfig config = tiny_config(Architecture::llama);
    for (const PolicyLoss loss : {PolicyLoss::dapo, PolicyLoss::grpo}) {
        const auto learner = tiny_learner(config, DType::f64, 1, 64, {.objective = policy({.loss = loss})});
        Sample silent = tree(1, 4, {3}, config.vocab_size);
        silent.sequences[0].learned.clear();
        silent.sequences[0].reward = 0.25f;
        const Outcome found = run(*learner, {make_batch({{&silent}})}, 2);
        EXPECT_EQ(found.sums.nll, 0);
        EXPECT_EQ(found.sums.weight, loss == PolicyLoss::dapo ? 0 : 1);
        for (const double g : found.gradients) ASSERT_EQ(g, 0);
        const std::vector<Metric> metrics = learner->objective().metrics(found.sums, Phase::training);
        EXPECT_EQ(metrics.at(0), Metric("reward", 0.25));
        for (const auto& [name, value] : metrics) EXPECT_TRUE(std::isfinite(std::get<double>(value))) << name;
    }
}

TEST(PolicyObjective, RewardsHaveTheirMeanAndDeviation) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const auto learner = tiny_learner(config, DType::f64, 1, 64, {.objective = policy({})});
    std::vector<Sample> samples;
    for (const float reward : {1.0f, 0.0f, 0.5f, 3.5f}) {
        samples.push_back(tree(samples.size(), 4, {3 + std::ssize(samples)}, config.vocab_size));
        samples.back().sequences[0].reward = reward;
    }
    samples.push_back(tree(9, 4, {2}, config.vocab_size));  // its reward is not known
    const Outcome found = run(*learner, separate(samples), 1);
    std::map<std::string, double> metrics;
    for (const auto& [name, value] : learner->objective().metrics(found.sums, Phase::training))
        metrics[name] = std::get<double>(value);
    EXPECT_NEAR(metrics.at("reward"), 1.25, 1e-15);
    EXPECT_NEAR(metrics.at("reward_std"), std::sqrt((0.0625 + 1.5625 + 0.5625 + 5.0625) / 3), 1e-14);
    EXPECT_EQ(metrics.at("completions/min_length"), 2);
    EXPECT_EQ(metrics.at("completions/max_length"), 6);
    EXPECT_NEAR(metrics.at("completions/mean_length"), 4, 1e-15);
}

TEST(PolicyObjective, RefusesWhatItCannotLearnFrom) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const auto learner = tiny_learner(config, DType::f64, 1, 64, {.objective = policy({.beta = 0.1})});
    const Sample pair = tree(1, 4, {3, 2}, config.vocab_size);
    expect_error(Exit::data, "2 sequences in 1 samples, expected one in each",
                 [&] { learner->accumulate({}, make_batch({{&pair}}), {.total = 1}); });
    Sample one = tree(1, 4, {3}, config.vocab_size);
    one.sequences[0].logps.reference = {-1, std::nanf(""), -2};
    expect_error(Exit::data, "beta is 0.1, but 1 of 3 learned tokens of a batch have no reference log-probability",
                 [&] { learner->accumulate({}, make_batch({{&one}}), {.total = 1}); });
}

}  // namespace
}  // namespace colonnade
