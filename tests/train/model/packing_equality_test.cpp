// Packed equals separate: loss and every gradient of a batch of packs equal the sums over its samples run alone.
// Likewise for accumulation: one micro-step of four packs equals four micro-steps of one pack.

#include <gtest/gtest.h>

#include "tests/support/answer_trees.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_trees.h"
#include "tests/support/step_outcome.h"
#include "train/objectives/language_model_objective.h"

namespace colonnade {
namespace {

double relative_gap(const std::vector<double>& a, const std::vector<double>& b) {
    double gap = 0, scale = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        gap = std::max(gap, std::abs(a[i] - b[i]));
        scale = std::max(scale, std::abs(b[i]));
    }
    return gap / scale;
}

class Packing : public testing::TestWithParam<std::tuple<Architecture, DType>> {
  protected:
    void SetUp() override {
        if (dtype() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static DType dtype() { return std::get<1>(GetParam()); }
    static ModelConfig config(bool tied) {
        const Architecture architecture = std::get<0>(GetParam());
        return dtype() == DType::bf16 ? small_config(architecture, tied) : tiny_config(architecture, tied);
    }
    static double rounding() { return dtype() == DType::f64 ? 1e-13 : 2e-6; }
    /// The same loss and gradients, to rounding. In bf16 every activation is rounded, and the position of a sample
    /// decides how its sums are split, so that some activations are rounded the other way: the two may differ by no
    /// more than the error of bf16 itself, against double on the CPU.
    static void expect_equal(const Outcome& a, const Outcome& b, const std::vector<Batch>& batches, double total,
                             const ModelConfig& model) {
        EXPECT_EQ(a.sums.weight, b.sums.weight);
        if (dtype() != DType::bf16) {
            EXPECT_NEAR(a.sums.nll, b.sums.nll, rounding() * b.sums.nll);
            EXPECT_LE(relative_gap(a.gradients, b.gradients), rounding());
            return;
        }
        int64_t packs = 1, length = 1;
        for (const Batch& batch : batches)
            packs = std::max(packs, batch.packs), length = std::max(length, batch.length);
        const Outcome exact = run(*tiny_learner(model, DType::f64, packs, length), batches, total);
        EXPECT_NEAR(a.sums.nll, b.sums.nll, 1e-3 * exact.sums.nll);
        EXPECT_LE(distance(a.gradients, b.gradients), distance(a.gradients, exact.gradients));
        EXPECT_LE(distance(a.gradients, exact.gradients), 0.02);
    }

    // Long enough for packs that span several attention tiles and begin and end inside of tiles.
    static std::vector<Sample> samples(int64_t vocab) {
        std::vector<Sample> s;
        for (const int64_t length : {70, 1, 33, 64, 2, 90, 17, 128, 5})
            s.push_back(random_sample(static_cast<uint64_t>(length), 0, {length}, vocab));
        s.push_back(random_sample(99, 20, {15, 30}, vocab));
        return s;
    }
};

TEST_P(Packing, EqualsSeparateSamples) {
    const ModelConfig config = this->config(false);
    const std::vector<Sample> s = samples(config.vocab_size);
    const auto learner = tiny_learner(config, dtype(), 2, 256);
    const Batch packed = make_batch({{&s[0], &s[1], &s[2], &s[9], &s[4]}, {&s[3], &s[5], &s[6], &s[8]}});
    const Batch rest = make_batch({{&s[7]}});
    const double total = packed.target_weight + rest.target_weight;
    std::vector<Batch> separate;
    for (const Sample& sample : s) separate.push_back(make_batch({{&sample}}));

    const Outcome a = run(*learner, {packed, rest}, total), b = run(*learner, separate, total);
    expect_equal(a, b, {packed, rest}, total, config);
}

/// A prompt that two answers share equals the prompt repeated before each of them, also if a sliding window ends within
/// the prompt or within an answer.
TEST_P(Packing, SharedPromptsEqualRepeatedOnes) {
    for (const int64_t window : {0, 24, 60}) {
        ModelConfig config = this->config(false);
        config.windows.assign(static_cast<size_t>(config.num_hidden_layers), window);
        const Sample before = random_sample(98, 0, {33}, config.vocab_size);
        const std::vector<Sample> pairs = {random_sample(97, 40, {15, 70}, config.vocab_size),
                                           random_sample(96, 20, {45, 3}, config.vocab_size)};
        std::vector<Batch> separate = {make_batch({{&before}})};
        for (const Sample& pair : pairs)
            for (const size_t b : {0u, 1u}) {
                const Sample answer = alone(pair, b);
                separate.push_back(make_batch({{&answer}}));
            }
        const Batch packed = make_batch({{&pairs[0], &before}, {&pairs[1]}});
        const auto learner = tiny_learner(config, dtype(), 2, 256);
        const double total = packed.target_weight;
        const Outcome a = run(*learner, {packed}, total), b = run(*learner, separate, total);
        SCOPED_TRACE(window);
        expect_equal(a, b, {packed}, total, config);
    }
}

/// Whatever the sequences of a row share, and wherever a sliding window ends within them, loss and gradients are those
/// of every sequence alone.
TEST_P(Packing, TreesEqualSeparateSequences) {
    ModelConfig config = this->config(false);
    const bool windowed = std::ranges::any_of(config.windows, [](int64_t w) { return w > 0; });
    const Philox random{31, 0};
    uint64_t at = 0;
    int by_positions = 0;
    for (int trial = 0; trial < 6; ++trial) {
        for (int64_t& window : config.windows)
            if (window > 0) window = std::array{5, 19, 50}[static_cast<size_t>(trial) / 2];
        std::vector<Sample> samples;
        while (samples.size() < 6) {
            // Of few tokens, and of many: so that rows are short with much in common, or span attention tiles.
            const RandomTree wanted = trial % 2 ? RandomTree{.sequences = 4, .tokens = 60, .vocab = config.vocab_size}
                                                : RandomTree{.sequences = 6, .tokens = 9, .vocab = 2};
            Sample tree = random_tree(random, at, wanted);
            if (tree.length() > 0) samples.push_back(std::move(tree));
        }
        std::vector<Batch> separate;
        for (const Sample& sample : samples)
            for (size_t s = 0; s < sample.sequences.size(); ++s) {
                const Sample sequence = alone(sample, s);
                if (sequence.length() > 0) separate.push_back(make_batch({{&sequence}}));
            }
        const auto learner = tiny_learner(config, dtype(), 2, 1024);
        for (const Sharing sharing : {Sharing::sample, Sharing::row}) {
            const Batch packed =
                make_batch({{&samples[0], &samples[1], &samples[2]}, {&samples[3], &samples[4], &samples[5]}},
                           {.sharing = sharing});
            for (const int64_t window : config.windows)
                if (window > 0)
                    by_positions += packed.mask.with_sliding_window(window, packed.positions).position_window > 0;
            const double total = packed.target_weight;
            const Outcome a = run(*learner, {packed}, total);
            SCOPED_TRACE(fmt::format("trial {}, sharing {}", trial, static_cast<int>(sharing)));
            const Outcome b = run(*learner, separate, total);
            if (dtype() != DType::f32) {
                expect_equal(a, b, {packed}, total, config);
                continue;
            }
            // f32 rounds both runs: neither is farther from double than the other by much.
            const Outcome exact = run(*tiny_learner(config, DType::f64, 2, 1024), separate, total);
            EXPECT_NEAR(a.sums.nll, exact.sums.nll, rounding() * exact.sums.nll);
            EXPECT_LE(relative_gap(a.gradients, exact.gradients),
                      rounding() + relative_gap(b.gradients, exact.gradients));
            EXPECT_LE(relative_gap(a.gradients, exact.gradients), 1e-5);
        }
    }
    EXPECT_EQ(by_positions >= 6, windowed);
}

TEST_P(Packing, OrderInAPackDoesNotMatter) {
    const ModelConfig config = this->config(true);
    const std::vector<Sample> s = samples(config.vocab_size);
    const auto learner = tiny_learner(config, dtype(), 1, 256);
    const Batch one = make_batch({{&s[0], &s[2], &s[9]}}), other = make_batch({{&s[9], &s[0], &s[2]}});
    const Outcome a = run(*learner, {one}, one.target_weight), b = run(*learner, {other}, one.target_weight);
    expect_equal(a, b, {one}, one.target_weight, config);
}

TEST_P(Packing, AccumulationOneTimesFourEqualsFourTimesOne) {
    const ModelConfig config = this->config(false);
    const std::vector<Sample> s = samples(config.vocab_size);
    const auto learner = tiny_learner(config, dtype(), 4, 128);
    const std::vector<std::vector<const Sample*>> packs = {
        {&s[0], &s[2]}, {&s[3], &s[4]}, {&s[5]}, {&s[6], &s[8], &s[9]}};
    const Batch whole = make_batch(packs);
    std::vector<Batch> parts;
    for (const auto& pack : packs) parts.push_back(make_batch({pack}));
    const Outcome a = run(*learner, {whole}, whole.target_weight), b = run(*learner, parts, whole.target_weight);
    expect_equal(a, b, {whole}, whole.target_weight, config);
}

/// DFT: the loss of a token times its probability. Its gradient is that of the weighted loss with these probabilities as
/// weights, and a token that sequences share counts once for each.
TEST_P(Packing, DftWeighsTokensByTheirProbability) {
    const ModelConfig config = this->config(false);
    const Sample text = random_sample(3, 0, {60}, config.vocab_size);
    const Batch batch = make_batch({{&text}}), twice = make_batch({{&text, &text}}, {.sharing = Sharing::row});
    const auto dft =
        tiny_learner(config, dtype(), 1, 128, {.objective = std::make_shared<LanguageModelObjective>(TokenLoss::dft)});
    const auto plain = tiny_learner(config, dtype(), 1, 128);
    std::vector<double> nll;
    const LossSums evaluated = dft->evaluate(dft->context(), batch, &nll);
    EXPECT_EQ(evaluated.nll, plain->evaluate(plain->context(), batch).nll);
    Batch weighted = batch;
    double expected = 0;
    for (size_t i = 0; i < nll.size(); ++i) {
        expected += batch.weights[i] * std::exp(-nll[i]) * nll[i];
        weighted.weights[i] *= std::exp(-nll[i]);
    }
    const double total = batch.target_weight;
    const Outcome found = run(*dft, {batch}, total), same = run(*plain, {weighted}, total);
    const double bound = dtype() == DType::bf16 ? 1e-2 : rounding();
    EXPECT_NEAR(found.sums.nll, expected, bound * expected);
    EXPECT_LE(relative_gap(found.gradients, same.gradients), bound);
    EXPECT_EQ(twice.real_tokens, batch.real_tokens);
    const Outcome doubled = run(*dft, {twice}, 2 * total);
    EXPECT_NEAR(doubled.sums.nll, 2 * expected, bound * expected);
    EXPECT_LE(relative_gap(doubled.gradients, found.gradients), bound);
}

INSTANTIATE_TEST_SUITE_P(Families, Packing,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::mistral,
                                                          Architecture::qwen2, Architecture::qwen3),
                                          testing::Values(DType::f32, DType::f64, DType::bf16)),
                         name_of_case);

TEST(Learner, EmptyPacksChangeNothing) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const Sample s = random_sample(5, 0, {40}, config.vocab_size);
    const auto learner = tiny_learner(config, DType::f32, 2, 64);
    const Batch full = make_batch({{&s}}), padded = make_batch({{&s}, {}}), empty = make_batch({{}, {}});
    const Outcome a = run(*learner, {full}, full.target_weight), b = run(*learner, {padded, empty}, full.target_weight);
    EXPECT_EQ(a.sums.nll, b.sums.nll);
    // Padding rows enter the weight gradients as exact zeros, but change how the matrix product splits its sums.
    EXPECT_LE(relative_gap(a.gradients, b.gradients), 1e-6);
}

/// A step does not depend on the gradients of the step before, even if it has no micro-step.
TEST(Learner, EveryStepStartsFromZero) {
    for (const bool tied : {false, true}) {
        const ModelConfig config = tiny_config(Architecture::qwen2, tied);
        const Sample s = random_sample(5, 0, {40}, config.vocab_size), t = random_sample(7, 3, {30}, config.vocab_size);
        const Batch a = make_batch({{&s}}), b = make_batch({{&t}});
        const auto learner = tiny_learner(config, DType::f32, 1, 64);
        const auto step = [&](std::initializer_list<const Batch*> batches) {
            learner->begin_step();
            for (const Batch* batch : batches)
                learner->accumulate({}, *batch, {.total = a.target_weight + b.target_weight});
            return values_of<float>(learner->gradients());
        };
        const auto first = step({&a, &b});
        EXPECT_NE(step({&b}), first);
        EXPECT_EQ(step({&a, &b}), first) << (tied ? "tied" : "untied");
        step({});
        learner->update({}, {}, 1e-3, 1.0);
        EXPECT_EQ(learner->result().gradient_norm, 0);
    }
}

class LearnerRecompute : public testing::TestWithParam<std::tuple<Architecture, DType>> {};

TEST_P(LearnerRecompute, GivesTheSameBits) {
    const auto [architecture, dtype] = GetParam();
    if (dtype == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    const ModelConfig config = dtype == DType::bf16 ? small_config(architecture) : tiny_config(architecture);
    const Sample s = random_sample(5, 0, {150}, config.vocab_size), t = random_sample(6, 4, {30, 9}, config.vocab_size);
    const Batch batch = make_batch({{&s, &t}});
    std::vector<Outcome> outcomes;
    size_t bytes = SIZE_MAX;
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
        const auto learner = tiny_learner(config, dtype, 1, 256, {.recompute = recompute});
        const size_t planned = Learner::plan(config, learner->options(), learner->options().device()).bytes();
        EXPECT_LT(planned, bytes);
        bytes = planned;
        learner->begin_step();
        learner->accumulate(learner->context({.deterministic = true}), batch, {.total = batch.target_weight});
        outcomes.push_back({learner->loss(), numbers_of(*learner, learner->gradients())});
    }
    for (const Outcome& o : outcomes) {
        EXPECT_EQ(o.sums.nll, outcomes[0].sums.nll);
        EXPECT_TRUE(o.gradients == outcomes[0].gradients);
    }
}

INSTANTIATE_TEST_SUITE_P(Families, LearnerRecompute,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::qwen3),
                                          testing::Values(DType::f32, DType::bf16)),
                         name_of_case);

}  // namespace
}  // namespace colonnade
