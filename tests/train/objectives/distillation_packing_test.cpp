// Stage distill: packed texts that share what they begin with equal separate ones, in loss, every gradient and every metric;
// gradients equal central differences in double; and teachers whose loss is known.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/answer_trees.h"
#include "tests/support/expect_error.h"
#include "tests/support/step_outcome.h"
#include "train/objectives/distillation_objective.h"
#include "train/objectives/language_model_objective.h"

namespace colonnade {
namespace {

const DistillationOptions kinds[] = {
    {}, {.beta = 1}, {.beta = 0.5, .temperature = 2}, {.beta = 0.25, .divergence_weight = 0.75, .nll_weight = 0.5}};

/// A list of `entries` tokens for every learned token, and less than the whole probability.
TeacherLists random_lists(const Sequence& sequence, int64_t vocab, uint64_t seed) {
    const Philox random{seed, 21};
    uint64_t draw = 0;
    TeacherLists lists;
    for (int64_t token = 0; token < learned_tokens(sequence); ++token) {
        const auto entries = 1 + static_cast<int64_t>(random.below(draw++, 5));
        const auto first = static_cast<int64_t>(random.below(draw++, static_cast<uint64_t>(vocab)));
        std::vector<double> weights;
        double sum = 0.3;
        for (int64_t e = 0; e < entries; ++e) sum += weights.emplace_back(std::exp(random.normal(draw++)));
        for (int64_t e = 0; e < entries; ++e)
            lists.add(static_cast<int32_t>((first + 3 * e) % vocab),
                      static_cast<float>(std::log(weights[static_cast<size_t>(e)] / sum)));
        lists.end_list();
    }
    return lists;
}

/// Answers to three prompts: several to each, two of them equal but for what the teacher says.
std::vector<Sample> taught_answers(uint64_t seed, int64_t vocab) {
    std::vector<Sample> samples;
    for (const int64_t prompt : {30, 1, 9}) {
        const Sample group = tree(seed + static_cast<uint64_t>(prompt), prompt, {24, 11, 3, 40}, vocab);
        for (size_t k = 0; k < 5; ++k) {
            Sample sample = alone(group, k % 4);
            Sequence& s = sample.sequences[0];
            if (k == 2) s.learned.push_back({s.learned[0].end - 1, s.learned[0].end, 0.5}), s.learned[0].end -= 2;
            s.teacher = random_lists(s, vocab, seed + samples.size());
            samples.push_back(std::move(sample));
        }
    }
    return samples;
}

class DistillationPacking : public testing::TestWithParam<std::tuple<Architecture, DType>> {
  protected:
    void SetUp() override {
        if (dtype() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static DType dtype() { return std::get<1>(GetParam()); }
    static std::unique_ptr<Learner> learner_of(std::shared_ptr<const Objective> objective) {
        const Architecture architecture = std::get<0>(GetParam());
        ModelConfig config = dtype() == DType::bf16 ? small_config(architecture) : tiny_config(architecture);
        config.windows.assign(config.windows.size(), 0);
        LearnerOptions options = tiny_options(dtype(), 2, 320, {.objective = std::move(objective)});
        options.density = {.terms = 2, .sequences = 1, .teacher = 5};
        auto learner = std::make_unique<Learner>(config, options);
        randomize(*learner, 1);
        return learner;
    }
    static double bound() { return dtype() == DType::f64 ? 1e-12 : dtype() == DType::f32 ? 2e-5 : 0.05; }
};

TEST_P(DistillationPacking, SharedTextsEqualSeparateOnes) {
    for (const DistillationOptions& kind : kinds) {
        const auto learner = learner_of(std::make_shared<DistillationObjective>(kind));
        const std::vector<Sample> samples = taught_answers(3, learner->config().vocab_size);
        const std::vector<Batch> together = packed(samples), apart = separate(samples);
        const double total = total_of(learner->objective(), apart);
        EXPECT_EQ(total_of(learner->objective(), together), total);
        EXPECT_LT(together[0].real_tokens, 3 * together[1].real_tokens);
        const Outcome found = run(*learner, together, total), expected = run(*learner, apart, total);
        EXPECT_GT(expected.sums.mean(), 0.01);
        EXPECT_NEAR(found.sums.mean(), expected.sums.mean(), bound() * std::max(1.0, expected.sums.mean()));
        EXPECT_LE(distance(found.gradients, expected.gradients), bound());
        LossSums evaluated;
        for (const Batch& batch : together) evaluated += learner->evaluate(learner->context(), batch);
        EXPECT_NEAR(evaluated.mean(), found.sums.mean(), 1e-6 * std::max(1.0, found.sums.mean()));
        const std::vector<Metric> a = learner->objective().metrics(evaluated, Phase::evaluation),
                                  b = learner->objective().metrics(expected.sums, Phase::evaluation);
        for (size_t i = 0; i < b.size(); ++i) {
            const double x = std::get<double>(a[i].second), y = std::get<double>(b[i].second);
            EXPECT_NEAR(x, y, std::max(bound(), 1e-6) * std::max(1.0, std::abs(y))) << b[i].first;
        }
    }
}

/// A teacher that gives all probability to the token of the text has the loss of a language model, and its gradient; but
/// for 1e-7, which its formula leaves to other tokens.
TEST_P(DistillationPacking, ACertainTeacherIsCrossEntropy) {
    const auto learner = learner_of(std::make_shared<DistillationObjective>(DistillationOptions{})),
               both = learner_of(std::make_shared<DistillationObjective>(
                   DistillationOptions{.divergence_weight = 0, .nll_weight = 1})),
               language = learner_of(std::make_shared<LanguageModelObjective>());
    std::vector<Sample> samples = taught_answers(5, learner->config().vocab_size);
    for (Sample& sample : samples) {
        Sequence& s = sample.sequences[0];
        s.teacher = {};
        for (const auto& [begin, end, weight] : s.learned)
            for (int32_t i = begin; i < end; ++i) {
                s.teacher.add(s.tokens[static_cast<size_t>(i)], 0);
                s.teacher.end_list();
            }
    }
    const std::vector<Batch> batches = packed(samples);
    const double total = total_of(learner->objective(), batches);
    const Outcome found = run(*learner, batches, total), mixed = run(*both, batches, total);
    for (Sample& sample : samples) sample.sequences[0].teacher = {};
    const Outcome expected = run(*language, packed(samples), total);
    const double tail = 2e-5, rounding = dtype() == DType::bf16 ? 0.02 : dtype() == DType::f32 ? 2e-5 : 1e-12;
    EXPECT_NEAR(found.sums.mean(), expected.sums.mean(), tail);
    EXPECT_LE(distance(found.gradients, expected.gradients), std::max(rounding, 1e-5));
    EXPECT_NEAR(mixed.sums.mean(), expected.sums.mean(), 1e-6);
    EXPECT_NEAR(mixed.sums.accuracy(), expected.sums.accuracy(), 1e-12);
    EXPECT_LE(distance(mixed.gradients, expected.gradients), rounding);
}

INSTANTIATE_TEST_SUITE_P(Families, DistillationPacking,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::mistral,
                                                          Architecture::qwen2, Architecture::qwen3),
                                          testing::Values(DType::f32, DType::f64, DType::bf16)),
                         name_of_case);

/// The student itself as the teacher, by lists of the whole vocabulary.
TEST(Distillation, FromItselfLearnsNothing) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const int64_t vocab = config.vocab_size;
    ASSERT_LE(vocab, TeacherLists::longest);
    for (const double beta : {0.0, 0.5, 1.0}) {
        LearnerOptions options =
            tiny_options(DType::f64, 1, 64,
                         {.objective = std::make_shared<DistillationObjective>(DistillationOptions{.beta = beta})});
        options.density.teacher = vocab;
        Learner learner(config, options);
        randomize(learner, 1);
        const auto language = tiny_learner(config, DType::f64, 1, 64);
        randomize(*language, 1);
        Sample sample = alone(tree(1, 6, {9}, vocab), 0);
        Sequence& s = sample.sequences[0];
        for (int32_t at = s.learned[0].begin; at < s.learned[0].end; ++at) {
            for (int32_t id = 0; id < vocab; ++id) {  // as the last token of a text, each has its probability
                Sample probe = sample;
                probe.sequences[0].tokens.resize(static_cast<size_t>(at) + 1);
                probe.sequences[0].tokens.back() = id;
                probe.sequences[0].learned = {{at, at + 1, 1}};
                probe.sequences[0].teacher = {};
                s.teacher.add(id, static_cast<float>(-language->evaluate({}, make_batch({{&probe}})).mean()));
            }
            s.teacher.end_list();
        }
        const Outcome found = run(learner, {make_batch({{&sample}})}, 9);
        EXPECT_NEAR(found.sums.mean(), 0, 1e-6) << beta;
        const Outcome scale = run(*language, {make_batch({{&sample}})}, 9);
        double largest = 0, of_language = 0;
        for (size_t i = 0; i < found.gradients.size(); ++i) {
            largest = std::max(largest, std::abs(found.gradients[i]));
            of_language = std::max(of_language, std::abs(scale.gradients[i]));
        }
        EXPECT_LT(largest, 1e-5 * of_language) << beta;  // log-probabilities are in float32
    }
}

TEST(Distillation, GradientsEqualCentralDifferences) {
    const ModelConfig config = tiny_config(Architecture::llama);
    for (const DistillationOptions& kind : kinds) {
        LearnerOptions options =
            tiny_options(DType::f64, 2, 320, {.objective = std::make_shared<DistillationObjective>(kind)});
        options.density = {.terms = 2, .sequences = 1, .teacher = 5};
        Learner learner(config, options);
        randomize(learner, 1);
        const std::vector<Sample> samples = taught_answers(9, config.vocab_size);
        const Batch batch = make_batch({{&samples[0], &samples[1], &samples[4]}, {&samples[6], &samples[11]}},
                                       {.sharing = Sharing::row});
        learner.begin_step();
        learner.accumulate({}, batch, {.total = batch.target_weight});
        double* const w = learner.weights().as<double>();
        const double* const g = learner.gradients().as<double>();
        double largest = 0;
        for (int64_t i = 0; i < learner.gradients().numel(); ++i) largest = std::max(largest, std::abs(g[i]));
        for (const Parameter& p : learner.parameters().all())
            for (int64_t i = 0; i < p.size(); i += std::max<int64_t>(1, p.size() / 4)) {
                double& x = w[p.begin + i];
                const double saved = x, h = 1e-6;
                const auto loss = [&](double at) {
                    x = at;
                    return learner.evaluate({}, batch).mean();
                };
                const double numeric = (loss(saved + h) - loss(saved - h)) / (2 * h);
                x = saved;
                EXPECT_NEAR(g[p.begin + i], numeric, 1e-6 * std::max(std::abs(numeric), largest)) << p.name;
            }
    }
}

TEST(Distillation, RefusesABatchWithoutATeacher) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const auto learner = tiny_learner(config, DType::f64, 1, 64,
                                      {.objective = std::make_shared<DistillationObjective>(DistillationOptions{})});
    const Sample plain = alone(tree(1, 4, {3}, config.vocab_size), 0);
    expect_error(Exit::data, "a batch of stage distill has 3 targets, and lists of a teacher for 0",
                 [&] { learner->accumulate({}, make_batch({{&plain}}), {.total = 1}); });
}

}  // namespace
}  // namespace colonnade
