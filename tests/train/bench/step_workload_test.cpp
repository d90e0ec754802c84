// Rows of a benchmark, and the operations of a step on them.

#include "train/bench/step_workload.h"

#include "tests/support/answer_trees.h"
#include "tests/support/file_test.h"
#include "tests/support/flat_sample.h"
#include "train/objectives/reward_objective.h"
#include "train/run/gpu_rates.h"
#include "train/run/step_flops.h"

namespace colonnade {
namespace {

using RowLengthsTest = FileTest;

TEST_F(RowLengthsTest, AreReadLineByLine) {
    spill(path("rows"), "3 4\n 7\t1 \r\n8");
    EXPECT_EQ(read_row_lengths(path("rows")), (RowLengths{{3, 4}, {7, 1}, {8}}));
    EXPECT_EQ(longest_row({{3, 4}, {7, 1}, {8}}), 8);
}

TEST_F(RowLengthsTest, ErrorsNameTheLine) {
    for (const std::string bad : {"0", "-3", "2.5", "four", "99999999999", "999999999999999999999"}) {
        spill(path("rows"), "3 4\n5 " + bad + "\n");
        expect_error(Exit::data, "rows:2: expected lengths of documents, each at least 1, found '" + bad + "'",
                     [&] { read_row_lengths(path("rows")); });
    }
    spill(path("rows"), "3 4\n\n5\n");
    expect_error(Exit::data, "rows:2: expected a row of lengths, found an empty line",
                 [&] { read_row_lengths(path("rows")); });
    spill(path("rows"), "");
    expect_error(Exit::data, "rows: contains no rows", [&] { read_row_lengths(path("rows")); });
}

TEST(RandomBatch, EveryTokenButPaddingIsATarget) {
    const RowLengths rows = {{3, 4}, {5}, {2, 2, 1}};
    const Batch batch = random_batch(rows, 1, 3, 11, Philox{1, 2});  // {5}, {2, 2, 1}, then again {3, 4}
    EXPECT_EQ(batch.packs, 3);
    EXPECT_EQ(batch.length, 7);
    EXPECT_EQ(batch.samples, 6);
    EXPECT_EQ(batch.real_tokens, 17);
    EXPECT_EQ(batch.target_weight, 17);
    EXPECT_EQ(batch.rows, (std::vector<int32_t>{0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 14, 15, 16, 17, 18, 19, 20}));
    EXPECT_EQ(batch.term_begins, (std::vector<int32_t>{0, 5, 7, 9, 10, 13, 17}));
    EXPECT_EQ(batch.weights, std::vector<double>(17, 1));
    EXPECT_EQ(batch.mask.lts, (std::vector<int32_t>{5, 5, 5, 5, 5, 0, 0, 2, 2, 4, 4, 5, 0, 0, 3, 3, 3, 7, 7, 7, 7}));
    for (const std::vector<int32_t>& ids : {batch.tokens, batch.targets})
        for (const int32_t id : ids) EXPECT_TRUE(id >= 0 && id < 11) << id;
    EXPECT_EQ(batch.targets.size(), batch.rows.size());
    EXPECT_EQ(batch.tokens, random_batch(rows, 4, 3, 11, Philox{1, 2}).tokens);
    EXPECT_NE(batch.tokens, random_batch(rows, 1, 3, 11, Philox{1, 3}).tokens);
}

TEST(RandomTrees, LeavesBeginWithTheStemAndTheTrunkSoFar) {
    const RandomSamples wanted{.mean_length = 0, .max_length = 60, .tokens = 900, .vocab = 1000, .seed = 5};
    TreeLengths lengths{.stem = 20, .leaves = 4, .trunk = 5, .leaf = 6};
    const TokenStore store = random_trees(lengths, wanted);
    int64_t trunk = 20, tokens = 0, trees = 0;  // of the current tree
    for (int64_t i = 0; i < store.size(); ++i) {
        const Sample sample = store.sample(i);
        ASSERT_EQ(sample.sequences.size(), 1u);
        const auto& [begin, end, weight] = sample.sequences[0].learned.at(0);
        EXPECT_EQ(end, sample.length());
        EXPECT_LE(end, 60);
        if (begin == 20) {
            trunk = 20;
            ++trees;
            tokens += 20;
        } else {
            const auto before = store.sample(i - 1).whole(0), own = sample.whole(0);
            EXPECT_TRUE(std::equal(own.begin(), own.begin() + trunk, before.begin())) << i;
        }
        tokens += begin - trunk + end - begin;
        trunk = begin;
    }
    EXPECT_GE(trees, 5);
    EXPECT_GE(tokens, 900);
    EXPECT_LT(tokens, 900 + 60);
    const PrefixSharing sharing = store.prefix_sharing(store.prefix_order());
    EXPECT_LE(sharing.after, tokens);
    EXPECT_GT(sharing.after, tokens - 20);  // trees agree by chance in a token or so
    lengths.shared = false;
    EXPECT_NEAR(random_trees(lengths, wanted).tokens(), 900, 60);
}

TEST(RandomPairs, AreTheSameWithRepeatedPrompts) {
    const PairLengths shared{.prompt = 6, .chosen = 4, .rejected = 2}, repeated{6, 4, 2, true};
    EXPECT_EQ(shared.tokens(), 12);
    EXPECT_EQ(repeated.tokens(), 18);
    const TokenStore a = random_pairs(shared, 5, 11, 3), b = random_pairs(repeated, 5, 11, 3);
    ASSERT_EQ(a.size(), 5);
    ASSERT_EQ(b.size(), 5);
    EXPECT_EQ(a.tokens(), 60);
    EXPECT_EQ(b.tokens(), 90);
    for (int64_t i = 0; i < a.size(); ++i) {
        const Sample pair = a.sample(i), expected = unshared(pair), found = b.sample(i);
        EXPECT_EQ(flat(pair).begins, (std::vector<int32_t>{6, 10}));
        EXPECT_EQ(flat(pair).weights, (std::vector<float>{0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}));
        for (const int32_t id : flat(pair).tokens) EXPECT_TRUE(id >= 0 && id < 11) << id;
        EXPECT_EQ(found, expected);
    }
    EXPECT_NE(a.sample(0), a.sample(1));
    EXPECT_NE(a.sample(0), random_pairs(shared, 1, 11, 4).sample(0));
    // Both layouts have the same targets: the last row of a shared prompt predicts for both answers.
    const Sample pair = a.sample(0), alone = b.sample(0);
    const Batch one = make_batch({{&pair}}), two = make_batch({{&alone}});
    EXPECT_EQ(one.pairs, (std::vector<AnswerPair>{{0, 1}}));
    EXPECT_EQ(two.pairs, one.pairs);
    EXPECT_EQ(one.real_tokens, 12);
    EXPECT_EQ(two.real_tokens, 18);
    EXPECT_EQ(one.rows, (std::vector<int32_t>{5, 5, 6, 7, 8, 10}));
    EXPECT_EQ(two.rows, (std::vector<int32_t>{5, 6, 7, 8, 15, 16}));
}

/// Four pairs as a batch of two rows.
Batch pairs_of(const PairLengths& lengths, int64_t vocab, std::vector<Sample>& samples) {
    const TokenStore store = random_pairs(lengths, 4, vocab, 9);
    for (int64_t i = 0; i < store.size(); ++i) samples.push_back(store.sample(i));
    return make_batch({{&samples[0], &samples[1]}, {&samples[2], &samples[3]}});
}

TEST(RandomPairs, HaveTheSameLossWithRepeatedPrompts) {
    for (const bool score : {false, true}) {
        ModelConfig config = tiny_config(Architecture::llama);
        config.score_head = score;
        const std::shared_ptr<const Objective> objective =
            score ? std::make_shared<RewardObjective>(RankingKind::pairwise, 0.01) : sigmoid_objective();
        Learner learner(config, {.max_packs = 2, .max_length = 160, .dtype = DType::f64, .objective = objective});
        randomize(learner, 1);
        std::vector<Sample> of_shared, of_repeated;
        Batch shared = pairs_of({30, 15, 20}, config.vocab_size, of_shared);
        Batch repeated = pairs_of({30, 15, 20, true}, config.vocab_size, of_repeated);
        shared.reference = repeated.reference = {-60, -80, -61, -85, -55, -83, -62, -79};
        const double a = learner.evaluate({}, shared).mean(), b = learner.evaluate({}, repeated).mean();
        EXPECT_GT(a, 0.01);
        EXPECT_NEAR(a, b, 1e-12 * a);
    }
}

TEST(StepFlops, CountVisiblePairsAndRealTokens) {
    ModelConfig m = family_defaults(Architecture::qwen2);
    m.hidden_size = 8;
    m.intermediate_size = 20;
    m.num_hidden_layers = 3;
    m.num_attention_heads = 4;
    m.num_key_value_heads = 2;
    m.head_dim = 2;
    m.vocab_size = 11;
    m.windows = {0, 2, 0};
    const Batch batch = random_batch({{3, 4}, {5}}, 0, 2, 11, Philox{1, 2});
    int64_t pairs = 0;
    for (const int64_t window : m.windows)
        for (const uint8_t seen : (window ? batch.mask.with_sliding_window(window) : batch.mask).dense()) pairs += seen;
    EXPECT_EQ(pairs, 2 * (6 + 10 + 15) + 5 + 7 + 9);
    EXPECT_EQ(visible_pairs(m, batch), pairs);
    // Branches see the tokens before them in their sample, however far away these are in the row.
    const Sample pair = sample_of({{1, 2, 3, 4, 5, 6, 7}, {0, 0, 1, 1, 1, 1, 1}, {2, 5}});
    const Batch branched = make_batch({{&pair}}, {.align = 8});
    pairs = 0;
    for (const int64_t window : m.windows) {
        const ColumnMask mask = branched.mask.with_sliding_window(window ? window : 100, branched.positions);
        for (const uint8_t seen : mask.dense()) pairs += seen;
    }
    EXPECT_EQ(pairs, 2 * (1 + 2 + 3 + 4 + 5 + 3 + 4) + (1 + 6 * 2));
    EXPECT_EQ(visible_pairs(m, branched), pairs);

    const int block = 8 * (4 + 2 + 2) * 2 + 4 * 2 * 8 + 3 * 8 * 20, tokens = 12;
    const double pairs_of_batch = visible_pairs(m, batch);
    EXPECT_EQ(useful_flops(m, batch), 6.0 * 3 * block * tokens + 6.0 * 8 * 11 * tokens + 12.0 * 4 * 2 * pairs_of_batch);
    const LoraSettings lora{.rank = 5, .targets = {"q_proj", "down_proj"}};
    const int64_t adapters = 3 * 5 * ((m.hidden_size + m.query_width()) + (m.intermediate_size + m.hidden_size));
    EXPECT_EQ(useful_flops(m, batch, {.lora = &lora}), 4.0 * 3 * block * tokens + 4.0 * 8 * 11 * tokens +
                                                           6.0 * static_cast<double>(adapters * tokens) +
                                                           12.0 * 4 * 2 * pairs_of_batch);
}

TEST(StepFlops, OfPairs) {
    ModelConfig m = tiny_config(Architecture::llama);
    std::vector<Sample> of_shared, of_repeated;
    const Batch shared = pairs_of({30, 15, 20}, m.vocab_size, of_shared);
    const Batch repeated = pairs_of({30, 15, 20, true}, m.vocab_size, of_repeated);
    // A prompt of p tokens has p (p + 1) / 2 visible pairs; an answer of n tokens has n p with the prompt and n (n + 1)
    // / 2 of its own.
    const double layers = static_cast<double>(m.num_hidden_layers);
    const double answers = 4 * (30 * 15 + 120 + 30 * 20 + 210);
    const double once = layers * (answers + 4 * 465), twice = layers * (answers + 8 * 465);
    EXPECT_EQ(visible_pairs(m, shared), once);
    EXPECT_EQ(visible_pairs(m, repeated), twice);

    const double block = static_cast<double>(
        m.hidden_size * (m.qkv_width() + m.query_width() + 3 * m.intermediate_size) * m.num_hidden_layers);
    const double head = static_cast<double>(m.hidden_size * m.vocab_size) * 4 * 35;
    const double of_pair = 12 * static_cast<double>(m.query_width());
    const double flops = useful_flops(m, shared);
    EXPECT_EQ(flops, 6 * block * 4 * 65 + 6 * head + of_pair * once);
    EXPECT_EQ(useful_flops(m, repeated), 6 * block * 4 * 95 + 6 * head + of_pair * twice);
    // The base as the reference of every batch adds a forward pass: a third of forward and backward.
    EXPECT_DOUBLE_EQ(useful_flops(m, shared, {.reference_forward = true}), flops * 4 / 3);
    m.score_head = true;
    EXPECT_EQ(useful_flops(m, shared),
              6 * block * 4 * 65 + 6 * static_cast<double>(m.hidden_size) * 8 + of_pair * once);
}

TEST(StepFlops, PeakIsThatOfTheWholeDevice) {
    for (const char* name : {"NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA GH200 480GB"})
        EXPECT_EQ(gpu_rates(name).bf16, 989.5e12) << name;
    for (const char* name : {"NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB"})
        EXPECT_EQ(gpu_rates(name).bf16, 312e12) << name;
    for (const char* name :
         {"NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA L4"})
        EXPECT_EQ(gpu_rates(name).bf16, 0) << name;
}

}  // namespace
}  // namespace colonnade
