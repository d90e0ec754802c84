// links: train
// Rows of a benchmark, and the count of what a step on them computes.

#include "train/step_workload.h"

#include "file_test.h"
#include "train/step_flops.h"

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
    expect_error(Exit::data, "rows: holds no rows", [&] { read_row_lengths(path("rows")); });
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
    EXPECT_EQ(batch.branches, (std::vector<int32_t>{0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 4, 4, 5, 5, 5, 5}));
    EXPECT_EQ(batch.weights, std::vector<float>(17, 1));
    EXPECT_EQ(batch.mask.lts, (std::vector<int32_t>{5, 5, 5, 5, 5, 0, 0, 2, 2, 4, 4, 5, 0, 0, 3, 3, 3, 7, 7, 7, 7}));
    for (const std::vector<int32_t>& ids : {batch.tokens, batch.targets})
        for (const int32_t id : ids) EXPECT_TRUE(id >= 0 && id < 11) << id;
    EXPECT_EQ(batch.targets.size(), batch.rows.size());
    EXPECT_EQ(batch.tokens, random_batch(rows, 4, 3, 11, Philox{1, 2}).tokens);
    EXPECT_NE(batch.tokens, random_batch(rows, 1, 3, 11, Philox{1, 3}).tokens);
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
    // Branches see what comes before them in their sample, however far ahead of them it lies in the row.
    const Sample pair{{1, 2, 3, 4, 5, 6, 7}, {0, 0, 1, 1, 1, 1, 1}, {2, 5}};
    const Batch branched = make_batch({{&pair}}, 8);
    pairs = 0;
    for (const int64_t window : m.windows) {
        const ColumnMask mask = branched.mask.with_sliding_window(window ? window : 100, branched.positions);
        for (const uint8_t seen : mask.dense()) pairs += seen;
    }
    EXPECT_EQ(pairs, 2 * (1 + 2 + 3 + 4 + 5 + 3 + 4) + (1 + 6 * 2));
    EXPECT_EQ(visible_pairs(m, branched), pairs);

    const int block = 8 * (4 + 2 + 2) * 2 + 4 * 2 * 8 + 3 * 8 * 20, tokens = 12;
    EXPECT_EQ(useful_flops(m, batch),
              6.0 * 3 * block * tokens + 6.0 * 8 * 11 * tokens + 12.0 * 4 * 2 * visible_pairs(m, batch));
}

TEST(StepFlops, PeakIsThatOfTheWholeDevice) {
    for (const char* name : {"NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA GH200 480GB"})
        EXPECT_EQ(dense_bf16_peak(name), 989.5e12) << name;
    for (const char* name : {"NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB"})
        EXPECT_EQ(dense_bf16_peak(name), 312e12) << name;
    for (const char* name :
         {"NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA L4"})
        EXPECT_EQ(dense_bf16_peak(name), 0) << name;
}

}  // namespace
}  // namespace colonnade
