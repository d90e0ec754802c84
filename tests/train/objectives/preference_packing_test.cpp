// Packed pairs that share their prompt equal separate ones that repeat it: log-probabilities, loss and every gradient
// of the stages dpo and rm, for every family. Also the gradients of both stages against central differences in double.

#include <gtest/gtest.h>

#include "tests/support/answer_trees.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_trees.h"
#include "tests/support/step_outcome.h"
#include "train/objectives/preference_objective.h"
#include "train/objectives/reward_objective.h"

namespace colonnade {
namespace {

std::unique_ptr<Learner> learner_of(const ModelConfig& config, DType dtype, std::shared_ptr<const Objective> objective,
                                    Reference reference = Reference::batches) {
    return tiny_learner(config, dtype, 2, 320, {.objective = std::move(objective), .reference = reference});
}

PreferenceMix mix() {
    PreferenceMix m;
    m.count = 2;
    m.losses[0] = PreferenceLoss::sigmoid;
    m.losses[1] = PreferenceLoss::sft;
    m.weights[0] = 1;
    m.weights[1] = 0.3;
    m.label_smoothing = 0.1;
    return m;
}

class PreferencePacking : public testing::TestWithParam<std::tuple<Architecture, DType>> {
  protected:
    void SetUp() override {
        if (dtype() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static DType dtype() { return std::get<1>(GetParam()); }
    static ModelConfig config(bool score) {
        const Architecture architecture = std::get<0>(GetParam());
        ModelConfig c = dtype() == DType::bf16 ? small_config(architecture, false) : tiny_config(architecture, false);
        c.score_head = score;
        return c;
    }
    /// Relative to the Euclidean norm. bf16 rounds every activation; the position of an answer decides which way.
    static double bound() { return dtype() == DType::f64 ? 1e-12 : dtype() == DType::f32 ? 5e-6 : 0.03; }

    // Prompts and answers of many lengths, across attention tiles.
    static std::vector<Sample> pairs(int64_t vocab) {
        return {tree(1, 30, {15, 40}, vocab), tree(2, 1, {1, 1}, vocab), tree(3, 90, {3, 2}, vocab),
                tree(4, 4, {70, 9}, vocab), tree(5, 17, {33, 64}, vocab)};
    }
    static std::vector<Batch> packed(const std::vector<Sample>& s) {
        return {make_batch({{&s[0], &s[1], &s[2]}, {&s[3]}}), make_batch({{&s[4]}})};
    }
};

TEST_P(PreferencePacking, PairsEqualSeparateAnswers) {
    const ModelConfig config = this->config(false);
    const std::vector<Sample> s = pairs(config.vocab_size);
    const double total = 5;
    const auto language = learner_of(config, dtype(), nullptr);
    const auto learner = learner_of(config, dtype(), std::make_shared<PreferenceObjective>(mix()));

    // The language model objective gives every answer alone, after its own copy of the prompt; the formula does the
    // rest.
    std::vector<Batch> batches = packed(s);
    std::vector<double> logps, reference;
    std::vector<Batch> falling, rising;  // answers by the sign of their coefficient
    std::vector<double> falling_totals, rising_totals;
    LossSums expected;
    for (size_t i = 0; i < s.size(); ++i) {
        PairScores pair{};
        std::vector<Batch> answers;
        for (const size_t b : {0u, 1u}) {
            const Sample answer = alone(s[i], b);
            answers.push_back(make_batch({{&answer}}));
            std::vector<double> nll;
            language->evaluate(language->context(), answers[b], &nll);
            double sum = 0;
            for (const double n : nll) sum -= n;
            logps.push_back(sum);
            reference.push_back(std::floor(sum) + (b ? 2.5 : -1.5));
            (b ? pair.rejected : pair.chosen) = sum;
            (b ? pair.ref_rejected : pair.ref_chosen) = reference.back();
            (b ? pair.rejected_length : pair.chosen_length) = static_cast<double>(nll.size());
        }
        const PairLoss loss = pair_loss(mix(), pair);
        expected.nll += loss.value;
        expected.correct += pair.chosen - pair.ref_chosen > pair.rejected - pair.ref_rejected;
        for (const size_t b : {0u, 1u}) {
            const double slope = b ? loss.d_rejected : loss.d_chosen;
            (slope < 0 ? falling : rising).push_back(answers[b]);
            (slope < 0 ? falling_totals : rising_totals).push_back(total / std::abs(slope));
        }
    }
    const auto gradient = [&](const std::vector<Batch>& of, const std::vector<double>& totals) {
        language->begin_step();
        for (size_t i = 0; i < of.size(); ++i) language->accumulate(language->context(), of[i], {.total = totals[i]});
        return numbers_of(*language, language->gradients());
    };
    std::vector<double> expected_gradient = gradient(falling, falling_totals);
    const std::vector<double> other = gradient(rising, rising_totals);
    for (size_t i = 0; i < other.size(); ++i) expected_gradient[i] -= other[i];

    size_t at = 0;
    std::vector<double> measured;
    for (Batch& batch : batches) {
        const auto count = static_cast<std::ptrdiff_t>(batch.sequences.size());
        batch.reference.assign(reference.begin() + static_cast<std::ptrdiff_t>(at),
                               reference.begin() + static_cast<std::ptrdiff_t>(at) + count);
        at += batch.sequences.size();
        const std::vector<double> own = learner->measure(learner->context(), batch);
        measured.insert(measured.end(), own.begin(), own.end());
    }
    const Outcome found = run(*learner, batches, total);
    ASSERT_EQ(measured.size(), logps.size());
    for (size_t i = 0; i < logps.size(); ++i) EXPECT_NEAR(measured[i], logps[i], bound() * std::abs(logps[i])) << i;
    EXPECT_EQ(found.sums.weight, total);
    EXPECT_EQ(found.sums.correct, expected.correct);
    EXPECT_NEAR(found.sums.nll, expected.nll, bound() * expected.nll);
    EXPECT_LE(distance(found.gradients, expected_gradient), bound());

    // A reference that is computed with every batch equals one that the batch brings. The base is the policy itself
    // here.
    for (Batch& batch : batches) batch.reference = learner->measure(learner->context(), batch);
    const Outcome given = run(*learner, batches, total);
    for (Batch& batch : batches) batch.reference.clear();
    const auto online = learner_of(config, dtype(), std::make_shared<PreferenceObjective>(mix()), Reference::base);
    const Outcome computed = run(*online, batches, total);
    EXPECT_NEAR(computed.sums.nll, given.sums.nll, 1e-6 * given.sums.nll);
    EXPECT_LE(distance(computed.gradients, given.gradients), dtype() == DType::bf16 ? 1e-3 : 1e-6);
}

TEST_P(PreferencePacking, RankingsEqualSeparateAnswers) {
    const ModelConfig config = this->config(true);
    std::vector<Sample> s = pairs(config.vocab_size);
    s[1] = tree(6, 12, {5, 20, 1, 9}, config.vocab_size);
    s[0].pairs[0].margin = 0.5;
    const auto learner = learner_of(config, dtype(), std::make_shared<RewardObjective>(RankingKind::pairwise, 0.01));
    std::vector<Batch> separate;
    std::vector<double> rewards, measured;
    for (const Sample& sample : s) {
        const Sample own = unshared(sample);
        separate.push_back(make_batch({{&own}}));
        for (size_t b = 0; b < sample.sequences.size(); ++b) {
            const Sample answer = alone(sample, b);
            rewards.push_back(learner->measure(learner->context(), make_batch({{&answer}})).at(0));
        }
    }
    for (const Batch& batch : packed(s)) {
        const std::vector<double> own = learner->measure(learner->context(), batch);
        measured.insert(measured.end(), own.begin(), own.end());
    }
    double largest = 0;
    for (const double r : rewards) largest = std::max(largest, std::abs(r));
    ASSERT_EQ(measured.size(), rewards.size());
    for (size_t i = 0; i < rewards.size(); ++i) EXPECT_NEAR(measured[i], rewards[i], bound() * largest) << i;
    const Outcome a = run(*learner, packed(s), 5), b = run(*learner, separate, 5);
    EXPECT_EQ(a.sums.weight, 5);
    EXPECT_NEAR(a.sums.nll, b.sums.nll, bound() * b.sums.nll);
    for (const size_t i : {0u, 1u}) EXPECT_NEAR(a.sums.extremes[i], b.sums.extremes[i], bound() * largest);
    EXPECT_LE(distance(a.gradients, b.gradients), bound());
}

/// Trees of any depth whose sequences are in several pairs, and learn tokens that they share.
std::vector<Sample> random_trees(int64_t vocab) {
    const Philox random{41, 0};
    uint64_t at = 0;
    std::vector<Sample> trees;
    while (trees.size() < 4) {
        Sample tree = random_tree(random, at, {.sequences = 5, .tokens = 12, .vocab = trees.size() % 2 ? vocab : 2});
        const bool learns = std::ranges::all_of(tree.sequences, [](const Sequence& s) { return !s.learned.empty(); });
        if (learns && tree.pairs.size() > 1) trees.push_back(std::move(tree));
    }
    return trees;
}

TEST_P(PreferencePacking, TreesEqualSeparateAnswers) {
    for (const bool score : {false, true}) {
        const ModelConfig config = this->config(score);
        const std::vector<Sample> trees = random_trees(config.vocab_size);
        std::vector<Sample> apart;
        for (const Sample& tree : trees) apart.push_back(unshared(tree));
        std::shared_ptr<const Objective> objective = std::make_shared<PreferenceObjective>(mix());
        if (score) objective = std::make_shared<RewardObjective>(RankingKind::pairwise, 0.01);
        LearnerOptions options = tiny_options(dtype(), 2, 512, {.objective = objective});
        options.density = {.terms = 8, .sequences = 2, .pairs = 2};
        Learner learner(config, options);
        randomize(learner, 1);
        const auto batches_of = [&](const std::vector<Sample>& s, Sharing sharing) {
            std::vector<Batch> batches = {make_batch({{&s[0], &s[1]}, {&s[2]}}, {.sharing = sharing}),
                                          make_batch({{&s[3]}}, {.sharing = sharing})};
            double value = -20;
            for (Batch& batch : batches)
                for (size_t i = 0; i < batch.sequences.size(); ++i) batch.reference.push_back(value -= 1.5);
            return batches;
        };
        const std::vector<Batch> separate = batches_of(apart, Sharing::sample);
        double total = 0;
        for (const Batch& batch : separate) total += learner.objective().total(batch);
        const Outcome expected = run(learner, separate, total);
        EXPECT_EQ(expected.sums.weight, total);
        for (const Sharing sharing : {Sharing::sample, Sharing::row}) {
            SCOPED_TRACE(fmt::format("score {}, sharing {}", score, static_cast<int>(sharing)));
            const std::vector<Batch> batches = batches_of(trees, sharing);
            EXPECT_LT(batches[0].real_tokens, separate[0].real_tokens);
            for (size_t i = 0; i < batches.size(); ++i) {
                const std::vector<double> a = learner.measure(learner.context(), batches[i]),
                                          b = learner.measure(learner.context(), separate[i]);
                EXPECT_LE(distance(a, b), bound());
            }
            const Outcome found = run(learner, batches, total);
            EXPECT_EQ(found.sums.weight, expected.sums.weight);
            EXPECT_NEAR(found.sums.nll, expected.sums.nll, bound() * std::abs(expected.sums.nll));
            for (size_t i = 0; i < found.sums.more.size(); ++i)
                EXPECT_NEAR(found.sums.more[i], expected.sums.more[i], bound() * 500) << i;
            EXPECT_LE(distance(found.gradients, expected.gradients), bound());
        }
    }
}

/// The loss is that of the row twice; the metrics describe answers, and count each row once.
TEST_P(PreferencePacking, APairOfWeightTwoCountsAsThePairTwice) {
    for (const bool score : {false, true}) {
        const ModelConfig config = this->config(score);
        const std::vector<Sample> s = pairs(config.vocab_size);
        std::vector<Sample> heavy = s;
        heavy[0].pairs[0].weight = 2;
        heavy[1].pairs[0].weight = 0.5;
        std::shared_ptr<const Objective> objective = std::make_shared<PreferenceObjective>(mix());
        if (score) objective = std::make_shared<RewardObjective>(RankingKind::pairwise, 0.01);
        const auto learner = learner_of(config, dtype(), objective);
        // Half of the whole is s[0] four times, s[1] once and s[2] twice.
        std::vector<Batch> weighted = {make_batch({{&heavy[0], &heavy[1]}, {&heavy[2]}})},
                           copies = {make_batch({{&s[0], &s[1]}, {&s[2]}}), make_batch({{&s[0]}, {&s[2]}}),
                                     make_batch({{&s[0]}, {&s[0]}})};
        const auto with_reference = [&](Batch& batch) {
            for (const BatchSequence& sequence : batch.sequences) batch.reference.push_back(-40 + 3 * sequence.rank);
        };
        std::ranges::for_each(weighted, with_reference);
        std::ranges::for_each(copies, with_reference);
        EXPECT_EQ(learner->objective().total(weighted[0]), 3.5);
        const Outcome a = run(*learner, weighted, 3.5), b = run(*learner, copies, 7);
        EXPECT_EQ(a.sums.weight, 3.5);
        EXPECT_EQ(b.sums.weight, 7);
        EXPECT_NEAR(a.sums.mean(), b.sums.mean(), bound() * b.sums.mean());
        EXPECT_LE(distance(a.gradients, b.gradients), bound());
        for (Sample& sample : heavy) sample.pairs[0].weight = 1;
        Batch plain = make_batch({{&heavy[0], &heavy[1]}, {&heavy[2]}});
        with_reference(plain);
        const Outcome unweighted = run(*learner, {plain}, 3);
        EXPECT_GT(distance(unweighted.gradients, a.gradients), 0.01);
        const auto of_rows = learner->objective().metrics(unweighted.sums, Phase::training),
                   of_weighted = learner->objective().metrics(a.sums, Phase::training);
        ASSERT_EQ(of_rows.size(), of_weighted.size());
        for (size_t i = 0; i < of_rows.size(); ++i) EXPECT_EQ(of_rows[i], of_weighted[i]) << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Families, PreferencePacking,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::mistral,
                                                          Architecture::qwen2, Architecture::qwen3),
                                          testing::Values(DType::f32, DType::f64, DType::bf16)),
                         name_of_case);

/// d loss / d weight of some entries of every parameter against central differences.
void expect_model_gradient(Learner& learner, const Batch& batch) {
    const Context ctx;
    learner.begin_step();
    learner.accumulate(ctx, batch, {.total = learner.objective().total(batch)});
    double* w = learner.weights().as<double>();
    const double* g = learner.gradients().as<double>();
    double largest = 0;
    for (int64_t i = 0; i < learner.gradients().numel(); ++i) largest = std::max(largest, std::abs(g[i]));
    EXPECT_GT(largest, 0);
    for (const Parameter& p : learner.parameters().all()) {
        const int64_t stride = std::max<int64_t>(1, p.size() / 12);
        for (int64_t i = 0; i < p.size(); i += stride) {
            double& x = w[p.begin + i];
            const double saved = x, h = 1e-5;
            x = saved + h;
            const double up = learner.evaluate(ctx, batch).mean();
            x = saved - h;
            const double down = learner.evaluate(ctx, batch).mean();
            x = saved;
            const double numeric = (up - down) / (2 * h), exact = g[p.begin + i];
            EXPECT_LE(std::abs(numeric - exact), 1e-6 * std::max(std::abs(exact), 1e-2 * largest))
                << p.name << "[" << i << "]";
        }
    }
}

class PreferenceGradient : public testing::TestWithParam<Architecture> {};

TEST_P(PreferenceGradient, OfPairsEqualsCentralDifferences) {
    const ModelConfig config = tiny_config(GetParam(), GetParam() != Architecture::qwen3);
    const Sample a = tree(1, 6, {5, 9}, config.vocab_size), b = tree(2, 11, {4, 2}, config.vocab_size);
    Batch batch = make_batch({{&a, &b}});
    const auto learner = learner_of(config, DType::f64, std::make_shared<PreferenceObjective>(mix()));
    batch.reference = {-20, -40, -9, -11};
    expect_model_gradient(*learner, batch);
}

TEST_P(PreferenceGradient, OfRankingsEqualsCentralDifferences) {
    for (const RankingKind kind : {RankingKind::pairwise, RankingKind::plackett_luce}) {
        ModelConfig config = tiny_config(GetParam());
        config.score_head = true;
        const Sample a = tree(1, 6, {5, 9, 2}, config.vocab_size);
        const Sample b = tree(2, 11, {4, 2}, config.vocab_size);
        const auto learner = learner_of(config, DType::f64, std::make_shared<RewardObjective>(kind, 0.05));
        expect_model_gradient(*learner, make_batch({{&a}, {&b}}));
    }
}

INSTANTIATE_TEST_SUITE_P(Families, PreferenceGradient,
                         testing::Values(Architecture::llama, Architecture::mistral, Architecture::qwen2,
                                         Architecture::qwen3),
                         [](const auto& test) { return std::string(name_of(test.param)); });

TEST(PreferenceObjective, RefusesSamplesThatAreNotPairs) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const auto learner = learner_of(config, DType::f32, std::make_shared<PreferenceObjective>(mix()));
    const Sample one = tree(1, 4, {3}, config.vocab_size), two = tree(5, 4, {3, 2}, config.vocab_size);
    Batch batch = make_batch({{&one, &two}});
    expect_error(Exit::data, "1 of 2 samples of a batch have no pair of answers to compare",
                 [&] { learner->accumulate({}, batch, {.total = 1}); });
    Sample silent = tree(2, 4, {3, 3}, config.vocab_size);
    silent.sequences[1].learned.clear();
    batch = make_batch({{&silent}});
    expect_error(Exit::data, "no token with a loss", [&] { learner->accumulate({}, batch, {.total = 1}); });
    const Sample pair = tree(3, 4, {3, 3}, config.vocab_size);
    batch = make_batch({{&pair}});
    expect_error(Exit::internal, "no reference, and nothing computes one",
                 [&] { learner->accumulate({}, batch, {.total = 1}); });
}

TEST(RewardObjective, RefusesWhatItCannotRank) {
    ModelConfig config = tiny_config(Architecture::llama);
    config.score_head = true;
    const auto learner =
        learner_of(config, DType::f32, std::make_shared<RewardObjective>(RankingKind::plackett_luce, 0));
    Sample pair = tree(3, 4, {3, 3}, config.vocab_size);
    pair.pairs[0].margin = 0.5;
    Batch batch = make_batch({{&pair}});
    expect_error(Exit::data, "a margin of 0.5, which only reward_loss: pairwise supports",
                 [&] { learner->accumulate({}, batch, {.total = 1}); });
    for (const std::vector<AnswerPair>& own : {std::vector<AnswerPair>{{0, 1}, {1, 2}}, {{1, 0}, {0, 2}, {1, 2}}}) {
        Sample ranking = tree(4, 4, {3, 3, 2}, config.vocab_size);
        ranking.pairs = own;
        const Sample first = tree(5, 4, {3, 3}, config.vocab_size);
        batch = make_batch({{&first, &ranking}});
        expect_error(Exit::data, "a sample has pairs of its own, which only reward_loss: pairwise supports",
                     [&] { learner->accumulate({}, batch, {.total = 1}); });
    }
    pair = tree(3, 0, {3, 0}, config.vocab_size);
    batch = make_batch({{&pair}});
    expect_error(Exit::data, "an answer of a ranking has no token",
                 [&] { learner->accumulate({}, batch, {.total = 1}); });
}

TEST(Objective, AnEmptyBatchChangesNothing) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const auto learner = learner_of(config, DType::f32, std::make_shared<PreferenceObjective>(mix()));
    const Outcome o = run(*learner, {make_batch({{}, {}})}, 3);
    EXPECT_EQ(o.sums.weight, 0);
    EXPECT_EQ(*std::ranges::max_element(o.gradients), 0);
}

}  // namespace
}  // namespace colonnade
