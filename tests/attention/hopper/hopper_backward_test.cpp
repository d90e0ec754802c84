// Hopper's backward compared with dense attention in double, in order of difficulty, with both ways to sum dQ.
// flashmask_test.cpp tests what every kernel must do; these tests aim at the head dims, tiles, warpgroups, stages and
// tickets of this one.
#include <gtest/gtest.h>

#include <array>

#include "attention/hopper/backward_schedule.h"
#include "attention/hopper/hopper.h"
#include "attention/mask_families.h"
#include "engine/device/checksum.h"
#include "tests/support/attention_call.h"
#include "tests/support/random_mask.h"
#include "tests/support/random_walk.h"

namespace colonnade {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

class HopperBackward : public testing::TestWithParam<int64_t> {
  protected:
    void SetUp() override {
        if (!test_gpu() || !test_gpu()->runs_hopper_kernels()) GTEST_SKIP() << "no Hopper GPU";
    }
    Context context(bool deterministic = false) const {
        Context ctx = context_on(Device::cuda);
        ctx.deterministic = deterministic;
        return ctx;
    }
    CallSize size(int64_t heads, int64_t kv_heads) const { return {heads, kv_heads, GetParam(), DType::bf16}; }

    /// The rows of all heads, whose first part is q or dq.
    static Tensor packed(Tensor sheet) {
        sheet.shape[2] = sheet.stride[1] / sheet.size(3);
        return sheet;
    }
    /// Checks both ways to sum dQ.
    void expect_dense(const ColumnMask& mask, int64_t heads, int64_t kv_heads, const std::string& name) const {
        const auto [e, bounds] = check_flashmask(
            context(), mask, {.heads = heads, .kv_heads = kv_heads, .head_dim = GetParam(), .dtype = DType::bf16});
        EXPECT_TRUE(e.within(bounds)) << fmt::format(
            "{}: batch {}, {} x {}, heads {}/{}/{}: dq {}, dk {}, dv {}; bounds {}, {}, {}", name, mask.batch,
            mask.rows, mask.columns, heads, kv_heads, mask.heads, e.dq, e.dk, e.dv, bounds.dq, bounds.dk, bounds.dv);
    }
    /// Positions of the first wrong gradients. Errors 8, 16 or 64 rows apart, by columns or by heads show which index
    /// map is wrong.
    void expect_elements(const ColumnMask& mask, int64_t heads, int64_t kv_heads, const std::string& name) const {
        AttentionCall call(context(), mask, size(heads, kv_heads));
        ASSERT_TRUE(cuda::hopper_supports(call.ctx, call.backward()));
        call.run();
        const int64_t all = heads + 2 * kv_heads, dim = GetParam();
        const auto qkv = read_values(call.ctx, packed(call.q()));
        DenseAttention dense{.batch = mask.batch,
                             .rows = mask.rows,
                             .columns = mask.columns,
                             .heads = heads,
                             .kv_heads = kv_heads,
                             .head_dim = dim,
                             .scale = call.scale(),
                             .q = part(qkv, all, 0, heads),
                             .k = part(qkv, all, heads, kv_heads),
                             .v = part(qkv, all, heads + kv_heads, kv_heads),
                             .dout = read_values(call.ctx, call.backward().dout)};
        dense_attention(dense, mask);
        const auto compare = [&](const char* what, const std::vector<double>& found,
                                 const std::vector<double>& expected, int64_t count) {
            double largest = 0;
            for (const double x : expected) largest = std::max(largest, std::abs(x));
            int64_t wrong = 0;
            for (size_t i = 0; i < found.size(); ++i) {
                if (std::abs(found[i] - expected[i]) <= 0.03 * largest || ++wrong > 6) continue;
                const auto at = static_cast<int64_t>(i);
                ADD_FAILURE() << fmt::format("{}: {} of row {}, head {}, column {} is {}, expected {}", name, what,
                                             at / dim / count % mask.rows, at / dim % count, at % dim, found[i],
                                             expected[i]);
            }
            EXPECT_EQ(wrong, 0) << name << ": wrong elements of " << found.size() << " of " << what;
        };
        compare("dv", part(call.dqkv, all, heads + kv_heads, kv_heads), dense.dv, kv_heads);
        compare("dk", part(call.dqkv, all, heads, kv_heads), dense.dk, kv_heads);
        compare("dq", part(call.dqkv, all, 0, heads), dense.dq, heads);
    }

    std::vector<double> part(const std::vector<double>& packed, int64_t all, int64_t first, int64_t count) const {
        std::vector<double> values;
        for (size_t i = 0; i < packed.size(); ++i)
            if (const int64_t head = static_cast<int64_t>(i) / GetParam() % all - first; head >= 0 && head < count)
                values.push_back(packed[i]);
        return values;
    }
};

INSTANTIATE_TEST_SUITE_P(HeadDims, HopperBackward, testing::Values(64, 128, 256));

TEST_P(HopperBackward, OneTile) {
    expect_elements(full_mask(64, 64), 1, 1, "one warpgroup's keys");
}

TEST_P(HopperBackward, OneItem) {
    expect_elements(full_mask(128, 128), 1, 1, "two blocks of rows");
    expect_elements(full_mask(640, 640), 1, 1, "stages wrap, five items");
}

TEST_P(HopperBackward, Causal) {
    for (const int64_t n : {64, 128, 256, 640}) expect_elements(causal_mask(n, n), 1, 1, fmt::format("causal {}", n));
}

TEST_P(HopperBackward, GroupedHeads) {
    expect_elements(causal_mask(256, 256), 6, 2, "three heads a group");
    expect_elements(full_mask(192, 192), 4, 1, "one key/value head");
}

TEST_P(HopperBackward, ManyItems) {
    expect_dense(full_mask(256, 256), 150, 150, "more items than multiprocessors");
    expect_dense(causal_mask(1500, 1500), 32, 32, "several items a multiprocessor");
}

TEST_P(HopperBackward, AnyLengths) {
    for (const int64_t rows : {1, 63, 64, 65, 127, 129, 300})
        for (const int64_t columns : {1, 63, 65, 128, 191, 333})
            for (const bool causal : {false, true})
                expect_dense(causal ? causal_mask(rows, columns) : full_mask(rows, columns), 2, 1,
                             causal ? "causal" : "full");
}

TEST_P(HopperBackward, EveryFamily) {
    for (const int64_t n : {300, 640})
        for (const MaskFamily& family : mask_families())
            expect_dense(family.build(default_parameters(n, n, 4, 3)), 4, 2, std::string(family.name));
}

TEST_P(HopperBackward, AnyMask) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        const ColumnMask mask = random_column_mask(seed, 1 + s % 3, std::array<int64_t, 4>{1, 2, 3, 6}[seed % 4],
                                                   1 + s * 97 % 613, 1 + s * 61 % 517);
        expect_dense(mask, 6, std::array<int64_t, 4>{1, 2, 3, 6}[seed / 4 % 4], fmt::format("seed {}", seed));
    }
}

TEST_P(HopperBackward, TreesWithinAWindow) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
        const int64_t n = 1 + static_cast<int64_t>(seed * 97 % 1500);
        expect_dense(tree_within_window(seed, n, seed % 4 == 0 ? 15 : 0), 6, 2, fmt::format("seed {}", seed));
    }
}

TEST_P(HopperBackward, LongColumnsOfTiles) {
    // Maps of a column with more than one word, and with more than 32, which take several loads.
    expect_dense(causal_document_mask(2200, {70, 1000, 2200}), 1, 1, "documents");
    expect_dense(global_sliding_window_mask(2200, 70, 100, 40), 2, 1, "global tokens");
}

/// Documents of 64 tokens: half of an item's tiles are empty for each block of rows. Every other document is
/// overwritten between the passes, because the forward pass may have larger tiles.
TEST_P(HopperBackward, EmptyHalvesOfAnItemAreNeverRead) {
    const int64_t n = 512;
    std::vector<int64_t> ends;
    for (int64_t end = 64; end <= n; end += 64) ends.push_back(end);
    for (const bool deterministic : {false, true})
        for (const int64_t spoilt : {0, 1}) {
            AttentionCall call(context(deterministic), document_mask(n, ends), size(2, 1));
            call.run();
            for (int64_t i = 0; i < n; ++i) {
                if (i / 64 % 2 != spoilt) continue;
                std::fill_n(call.qkv.begin() + i * call.width(), call.width(), nan);
                std::fill_n(call.dout.begin() + i * call.out_width(), call.out_width(), nan);
            }
            call.write();
            flashmask_backward(call.ctx, call.backward());
            const auto found = read_values(call.ctx, packed(call.backward().dq));
            for (int64_t i = 0; i < n; ++i)
                for (int64_t x = 0; x < call.width(); ++x)
                    ASSERT_EQ(std::isnan(found[static_cast<size_t>(i * call.width() + x)]), i / 64 % 2 == spoilt)
                        << "row " << i << ", element " << x;
        }
}

/// Padding gives items without any tile between others; their dK and dV are zero.
TEST_P(HopperBackward, ItemsWithoutTilesGiveZeros) {
    const int64_t n = 2000, seen = 700;
    AttentionCall call(context(), causal_document_mask(n, {seen}), size(16, 16));
    call.run();
    for (int64_t i = 0; i < n; ++i)
        for (int64_t x = 0; x < call.width(); ++x) {
            const double gradient = call.dqkv[static_cast<size_t>(i * call.width() + x)];
            ASSERT_TRUE(std::isfinite(gradient) && (i < seen || gradient == 0)) << "row " << i << ", element " << x;
        }
}

TEST_P(HopperBackward, TheSameBitsInEveryRun) {
    for (const ColumnMask& mask : {causal_document_mask(3000, {700, 900, 3000}), full_mask(1500, 1500),
                                   causal_blockwise_mask(3000, {900, 3000})}) {
        AttentionCall call(context(true), mask, size(16, 4));
        Arena arena(Device::cuda, Arena::alignment);
        const Tensor sum = arena.tensor("", DType::i64, {1});
        call.run();
        const FlashMaskForward forward = call.forward();
        const FlashMaskBackward backward = call.backward();
        std::array<uint64_t, 3> first{};
        for (int run = 0; run < 1000; ++run) {
            flashmask_forward(call.ctx, forward);
            flashmask_backward(call.ctx, backward);
            std::array<uint64_t, 3> now{};
            for (size_t i = 0; const Tensor& result : {forward.out, forward.lse, packed(backward.dq)})
                now[i++] = checksum(call.ctx, result, sum);
            if (run == 0) first = now;
            ASSERT_EQ(now, first) << "run " << run;
        }
    }
}

/// Masks whose items wait for each other give the same bits with one head at a time and with all heads.
TEST_P(HopperBackward, TheSameBitsByAnyNumberOfHeadsAtOnce) {
    const std::vector<int64_t> ends{700, 900, 2100, 3000};
    for (const ColumnMask& mask : {document_mask(3000, ends), causal_blockwise_mask(3000, ends)}) {
        AttentionCall call(context(true), mask, size(16, 8));
        call.run();
        const auto bits = bits_of(call.dqkv);
        std::array<int64_t, 2> chosen{};
        call.ctx.gpu->download(chosen.data(), call.plan.gpu.hopper.column_lags);
        for (const int64_t lags : {0, 1, 3, 10, 1000}) {
            chosen[0] = (lags * chosen[1] + 999) / 1000;
            call.ctx.gpu->upload(call.plan.gpu.hopper.column_lags, chosen.data());
            call.run();
            ASSERT_TRUE(bits_of(call.dqkv) == bits) << "lags " << lags;
        }
    }
}

/// A mask with columns that most rows see, and heads that make items of these columns much longer than others.
struct HeavyColumns {
    std::string name;
    ColumnMask mask;
    int64_t heads, kv_heads;
};
std::vector<HeavyColumns> heavy_columns() {
    const auto tree = [](const char* family, int64_t n, int64_t stem, int64_t leaf) {
        FamilyParameters p = default_parameters(n, n);
        p.stem = stem, p.leaf = leaf;
        return mask_family(family).build(p);
    };
    std::vector<HeavyColumns> all;
    all.push_back({"a stem", tree("chats_behind_stem", 1300, 300, 90), 7, 1});
    all.push_back({"stems", tree("rollouts", 1300, 200, 80), 16, 2});
    all.push_back({"a trunk", tree("agent_traces", 1100, 200, 60), 10, 2});
    all.push_back({"two words of rows a head", tree("chats_behind_stem", 2200, 150, 300), 3, 1});
    all.push_back({"pieces of two heads", tree("chats_behind_stem", 300, 70, 40), 40, 1});
    // The window hides the stem from many of its rows, but not all: answers are shorter than the window.
    const std::vector<WalkedSequence> chats(16, {300, 80});
    std::vector<WalkedSequence> walk{{0, 380}};
    walk.insert(walk.end(), chats.begin(), chats.end());
    ColumnMask windowed = tree_mask(1660, walk);
    windowed.row_positions = tree_positions(1660, walk);
    windowed.position_window = 250;
    all.push_back({"a stem within a window", std::move(windowed), 14, 1});
    all.push_back(
        {"two sheets", stack({tree("chats_behind_stem", 700, 200, 60), tree("rollouts", 700, 80, 30)}), 14, 2});
    return all;
}

TEST_P(HopperBackward, HeavyColumnsAreCut) {
    for (const auto& [name, mask, heads, kv_heads] : heavy_columns()) {
        expect_dense(mask, heads, kv_heads, name);
        AttentionCall call(context(), mask, size(heads, kv_heads));
        const GpuTilePlan::Hopper& plan = call.plan.gpu.hopper;
        std::array<int64_t, 2> lags{};
        std::array<int32_t, 32> longest{};
        call.ctx.gpu->download(lags.data(), plan.column_lags);
        call.ctx.gpu->download(longest.data(), plan.longest_columns);
        const auto group = static_cast<int>(heads / kv_heads);
        const hopper::Cut cut = hopper::cut_of({.slots = lags[1],
                                                .group = group,
                                                .heads_per_mask = static_cast<int>(heads),
                                                .sheets = static_cast<int>(mask.batch * mask.heads),
                                                .kv_heads = static_cast<int>(kv_heads),
                                                .section = static_cast<int>(kv_heads),
                                                .column_words = static_cast<int>((mask.rows + 2047) / 2048)});
        EXPECT_TRUE(cut.entries > 0 && longest[0] * group > cut.longest_item) << name << ": no item is cut";
    }
}

/// dK and dV have the same bits in every run, dQ in every deterministic run.
TEST_P(HopperBackward, HeavyColumnsGiveTheSameBitsInEveryRun) {
    for (const auto& [name, mask, heads, kv_heads] : heavy_columns()) {
        const auto keys = [&, all = heads + 2 * kv_heads, kv = kv_heads, first = heads](const AttentionCall& call) {
            return bits_of(part(call.dqkv, all, first, 2 * kv));
        };
        AttentionCall call(context(true), mask, size(heads, kv_heads));
        Arena arena(Device::cuda, Arena::alignment);
        const Tensor sum = arena.tensor("", DType::i64, {1});
        call.run();
        const FlashMaskBackward backward = call.backward();
        const uint64_t first = checksum(call.ctx, packed(backward.dq), sum);
        for (int run = 0; run < 200; ++run) {
            flashmask_backward(call.ctx, backward);
            ASSERT_EQ(checksum(call.ctx, packed(backward.dq), sum), first) << name << ", run " << run;
        }
        const auto first_keys = keys(call);
        call.run();
        ASSERT_TRUE(keys(call) == first_keys) << name;
        AttentionCall other(context(false), mask, size(heads, kv_heads));
        other.run();
        const auto other_keys = keys(other);
        for (int run = 0; run < 10; ++run) {
            other.run();
            ASSERT_TRUE(keys(other) == other_keys) << name << ", run " << run;
        }
    }
}

/// Both sum the same terms in different order.
TEST_P(HopperBackward, BothWaysToSumAgree) {
    const ColumnMask mask = causal_document_mask(1500, {500, 1500});
    AttentionCall ordered(context(true), mask, size(8, 2)), any(context(false), mask, size(8, 2));
    ordered.run(), any.run();
    double largest = 0;
    for (const double x : ordered.dqkv) largest = std::max(largest, std::abs(x));
    for (size_t i = 0; i < any.dqkv.size(); ++i)
        ASSERT_NEAR(any.dqkv[i], ordered.dqkv[i], largest / 256) << "element " << i;
}

}  // namespace
}  // namespace colonnade
