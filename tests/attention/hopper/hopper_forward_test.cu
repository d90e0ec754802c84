// Hopper's forward kernel compared with dense attention in double, in order of difficulty.

#include "attention/hopper/hopper.h"
#include "attention/hopper/work.cuh"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "attention/dense.h"
#include "attention/mask_families.h"
#include "attention/tensor_values.h"
#include "engine/device/arena.h"
#include "engine/device/philox.h"
#include "tests/support/random_mask.h"
#include "tests/support/random_walk.h"
#include "tests/support/test_gpu.h"

namespace colonnade {
namespace {

/// A tile of an item is active if one of its blocks is active in the plan, and masked unless all are full.
template <int blocks, int columns>
void expect_tile_bits() {
    using Bits = hopper::TileBits<columns>;
    constexpr int row_blocks = 7, words = 3, sheets = 2, of_tile = columns / 64;
    std::vector<uint32_t> active, partial;
    for (uint64_t i = 0; i < sheets * row_blocks * words; ++i) {
        const auto random = [&](uint64_t stream) {
            return static_cast<uint32_t>(Philox{21, stream}.below(i, uint64_t{1} << 32));
        };
        active.push_back(random(0) & (i % 3 == 0 ? random(1) : ~0u)), partial.push_back(active.back() & random(2));
    }
    const hopper::Work work{.active = active.data(),
                            .partial = partial.data(),
                            .order = nullptr,
                            .next = nullptr,
                            .row_blocks = row_blocks,
                            .words = words,
                            .row_groups = (row_blocks + blocks - 1) / blocks,
                            .entries = 0,
                            .mask_heads = 1,
                            .sharing = 1,
                            .section = 1,
                            .items = 0};
    for (int sheet = 0; sheet < sheets; ++sheet)
        for (int block = 0; block < row_blocks; block += blocks)
            for (int w = 0; w < words; ++w) {
                const auto bits = hopper::tile_bits<blocks, columns>(work, sheet, 64 * block, w);
                for (int bit = 0; bit < 32; bit += of_tile) {
                    bool some = false, full = true;
                    for (int row = block; row < std::min(block + blocks, row_blocks); ++row)
                        for (int column = bit; column < bit + of_tile; ++column) {
                            const auto at = static_cast<size_t>((sheet * row_blocks + row) * words + w);
                            some |= active[at] >> column & 1;
                            full &= (active[at] & ~partial[at]) >> column & 1;
                        }
                    ASSERT_EQ((bits & Bits::active) >> bit & 1, some ? 1u : 0u) << columns << " columns: " << bit;
                    ASSERT_EQ((bits >> bit & Bits::masked) != 0, !full) << columns << " columns: " << bit;
                }
            }
}

TEST(HopperWork, TileBits) {
    expect_tile_bits<2, 128>();
    expect_tile_bits<3, 128>();
    expect_tile_bits<2, 64>();
}

struct Heads {
    int64_t query = 1, kv = 1, dim = 128;
};

/// One call. Queries are a slice of wider rows, keys and values share rows, and outputs share rows with a head that
/// must not change.
class Call {
  public:
    Call(const ColumnMask& mask, const Heads& heads, double size = 1)
        : mask_(mask), heads_(heads), arena_(Device::cuda, bytes()) {
        lay_out(arena_);
        write_values(ctx_, queries_, [&](int64_t i) { return size * normal(0, i); });
        write_values(ctx_, keys_, [&](int64_t i) {
            return (i / heads_.dim % (2 * heads_.kv) < heads_.kv ? size : 1) * normal(1, i);
        });
        write_values(ctx_, outs_, [](int64_t) { return untouched; });
        write_values(ctx_, lse_, [](int64_t) { return std::nan(""); });
        plan_ = make_gpu_tile_plan(ctx_, plan_memory_, mask_);
    }
    FlashMaskForward args() const {
        return {.out = outs_.slice(2, 0, heads_.query),
                .lse = lse_,
                .q = queries_.slice(2, 1, 1 + heads_.query),
                .k = keys_.slice(2, 0, heads_.kv),
                .v = keys_.slice(2, heads_.kv, 2 * heads_.kv),
                .mask = mask_,
                .plan = plan_,
                .scale = 1 / std::sqrt(static_cast<double>(heads_.dim))};
    }
    void run() const { cuda::hopper_forward(ctx_, args()); }
    Context context() const { return ctx_; }
    const Tensor& keys() const { return keys_; }

    std::vector<double> out() const { return read_values(ctx_, outs_); }
    std::vector<double> lse() const { return read_values(ctx_, lse_); }

    /// Rounding P and the output to bf16 gives errors of at most 2^-8 of sum p |v| / sum p and of |out|; sums in f32
    /// and ex2.approx add some 1e-5. Reports the first wrong elements and their positions.
    void expect_dense(const std::string& name) const {
        run();
        DenseAttention dense{.batch = mask_.batch,
                             .rows = mask_.rows,
                             .columns = mask_.columns,
                             .heads = heads_.query,
                             .kv_heads = heads_.kv,
                             .head_dim = heads_.dim,
                             .scale = args().scale,
                             .q = columns(queries_, 1, heads_.query),
                             .k = columns(keys_, 0, heads_.kv),
                             .v = columns(keys_, heads_.kv, heads_.kv),
                             .dout = {}};
        dense_attention(dense, mask_);
        DenseAttention sizes = dense;
        for (double& v : sizes.v) v = std::abs(v);
        dense_attention(sizes, mask_);
        const auto found = columns(outs_, 0, heads_.query), beside = columns(outs_, heads_.query, 1), found_lse = lse();
        const std::string what =
            fmt::format("{}: {} x {}, batch {}, heads {}/{}/{}, head_dim {}", name, mask_.rows, mask_.columns,
                        mask_.batch, heads_.query, heads_.kv, mask_.heads, heads_.dim);
        int64_t wrong = 0;
        for (size_t i = 0; i < found.size(); ++i) {
            const double bound = 1.01 / 256 * (sizes.out[i] + std::abs(dense.out[i])) + (sizes.out[i] > 0 ? 1e-5 : 0);
            if (std::abs(found[i] - dense.out[i]) <= bound || ++wrong > 4) continue;
            const auto at = static_cast<int64_t>(i);
            ADD_FAILURE() << what << ": out of batch " << at / heads_.dim / heads_.query / mask_.rows << ", row "
                          << at / heads_.dim / heads_.query % mask_.rows << ", head " << at / heads_.dim % heads_.query
                          << ", " << at % heads_.dim << " is " << found[i] << ", expected " << dense.out[i] << " +- "
                          << bound;
        }
        for (size_t i = 0; i < found_lse.size(); ++i) {
            const bool held = std::isfinite(dense.lse[i])
                                  ? std::abs(found_lse[i] - dense.lse[i]) <= 1e-4 + 4e-6 * std::abs(dense.lse[i])
                                  : found_lse[i] == dense.lse[i];
            if (held || ++wrong > 8) continue;
            const auto at = static_cast<int64_t>(i);
            ADD_FAILURE() << what << ": lse of batch " << at / mask_.rows / heads_.query << ", head "
                          << at / mask_.rows % heads_.query << ", row " << at % mask_.rows << " is " << found_lse[i]
                          << ", expected " << dense.lse[i];
        }
        EXPECT_EQ(wrong, 0) << what << ": of " << found.size() << " outputs and " << found_lse.size() << " lse";
        EXPECT_EQ(std::ranges::count(beside, untouched), std::ssize(beside)) << what << ": wrote beside its outputs";
    }

  private:
    static constexpr double untouched = 77;

    static double normal(uint64_t stream, int64_t i) { return Philox{11, stream}.normal(static_cast<uint64_t>(i)); }
    size_t bytes() {
        Arena planned(Device::cuda);
        lay_out(planned);
        return planned.bytes();
    }
    void lay_out(Arena& arena) {
        const int64_t b = mask_.batch;
        queries_ = arena.tensor("", DType::bf16, {b, mask_.rows, heads_.query + 1, heads_.dim});
        keys_ = arena.tensor("", DType::bf16, {b, mask_.columns, 2 * heads_.kv, heads_.dim});
        outs_ = arena.tensor("", DType::bf16, {b, mask_.rows, heads_.query + 1, heads_.dim});
        lse_ = arena.tensor("", DType::f32, {b, heads_.query, mask_.rows});
        plan_memory_ = GpuTilePlan::lay_out(arena, mask_);
    }
    std::vector<double> columns(const Tensor& packed, int64_t first, int64_t count) const {
        const auto all = read_values(ctx_, packed);
        const int64_t width = packed.size(2);
        std::vector<double> values;
        for (int64_t i = 0; i < packed.numel(); ++i)
            if (const int64_t head = i / heads_.dim % width - first; head >= 0 && head < count)
                values.push_back(all[static_cast<size_t>(i)]);
        return values;
    }

    Context ctx_{.device = Device::cuda, .gpu = test_gpu()};
    ColumnMask mask_;
    Heads heads_;
    Tensor queries_, keys_, outs_, lse_;
    GpuTilePlan plan_memory_;
    Arena arena_;
    TilePlan plan_;
};

class HopperForward : public testing::TestWithParam<int64_t> {
  protected:
    void SetUp() override {
        if (!test_gpu() || !test_gpu()->runs_hopper_kernels()) GTEST_SKIP() << "no Hopper GPU";
    }
    Heads heads(int64_t query, int64_t kv) const { return {query, kv, GetParam()}; }
};

TEST_P(HopperForward, OneFullTile) {
    Call(full_mask(128, 128), heads(1, 1)).expect_dense("one tile");
}

TEST_P(HopperForward, SeveralFullTiles) {
    for (const int64_t columns : {256, 384, 1280})
        Call(full_mask(128, columns), heads(1, 1)).expect_dense("a row of tiles");
}

TEST_P(HopperForward, ManyItems) {
    Call(full_mask(512, 256), heads(1, 1)).expect_dense("row blocks");
    Call(full_mask(256, 256), heads(150, 150)).expect_dense("more items than multiprocessors");
}

TEST_P(HopperForward, GroupedHeads) {
    Call(full_mask(256, 384), heads(6, 2)).expect_dense("three heads a group");
    Call(full_mask(256, 384), heads(4, 1)).expect_dense("one key/value head");
}

TEST_P(HopperForward, OddLengths) {
    for (const int64_t rows : {1, 63, 64, 65, 127, 129, 191, 192, 193, 300, 383, 385})
        for (const int64_t columns : {1, 63, 65, 128, 191, 333})
            Call(full_mask(rows, columns), heads(2, 1)).expect_dense("full");
}

TEST_P(HopperForward, Causal) {
    for (const int64_t n : {64, 128, 192, 256, 384, 512, 777})
        Call(causal_mask(n, n), heads(2, 1)).expect_dense("causal");
    Call(causal_mask(200, 700), heads(2, 2)).expect_dense("causal, more keys");
    Call(causal_mask(700, 200), heads(2, 2)).expect_dense("causal, rows that see nothing");
}

TEST_P(HopperForward, EveryFamily) {
    for (const int64_t n : {300, 640})
        for (const MaskFamily& family : mask_families())
            Call(family.build(default_parameters(n, n, 4, 3)), heads(4, 2)).expect_dense(std::string(family.name));
}

/// 64 rows that see nothing in a run of tiles that is longer than the stages of the keys: at the start, in the middle,
/// at the end.
TEST_P(HopperForward, RowsThatSkipTiles) {
    constexpr int64_t rows = 384, columns = 1664;
    for (const int32_t row : {0, 64, 128, 192, 320})
        for (const auto& [first, last] : {std::pair{0, 1408}, {128, 1536}, {200, 1500}, {384, 1664}, {0, 1664}}) {
            ColumnMask mask{.causal = false, .vectors = MaskVectors::all, .rows = rows, .columns = columns};
            for (int32_t j = 0; j < columns; ++j) {
                const bool hides = first <= j && j < last;
                mask.lts.push_back(hides ? row : rows), mask.lte.push_back(hides ? row + 64 : rows);
                mask.uts.push_back(0), mask.ute.push_back(0);
            }
            Call(mask, heads(2, 1)).expect_dense(fmt::format("rows from {} on, columns {} to {}", row, first, last));
        }
}

TEST_P(HopperForward, AnyMask) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        const ColumnMask mask = random_column_mask(seed, 1 + s % 3, std::array<int64_t, 4>{1, 2, 3, 6}[seed % 4],
                                                   1 + s * 97 % 613, 1 + s * 61 % 517);
        const int64_t kv_heads = std::array<int64_t, 4>{1, 2, 3, 6}[seed / 4 % 4];
        Call(mask, heads(6, kv_heads)).expect_dense(fmt::format("seed {}", seed));
    }
}

TEST_P(HopperForward, TreesWithinAWindow) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
        const int64_t n = 1 + static_cast<int64_t>(seed * 97 % 1500);
        Call(tree_within_window(seed, n, seed % 4 == 0 ? 15 : 0), heads(6, 2))
            .expect_dense(fmt::format("seed {}", seed));
    }
}

TEST_P(HopperForward, LargeLogits) {
    Call(causal_document_mask(400, {90, 256, 400}), heads(2, 1), 6).expect_dense("logits of some hundred");
}

/// The causal rule as a flag and as an upper range of every column give the same results.
TEST_P(HopperForward, CausalByFlagAndByVectorsIsTheSame) {
    constexpr int64_t n = 1111;
    ColumnMask flag = causal_document_mask(n, {100, 400, 512, 1111}), vectors = flag;
    vectors.causal = false, vectors.vectors = MaskVectors::all;
    vectors.lte.assign(n, n), vectors.uts.assign(n, 0);
    for (int32_t j = 0; j < n; ++j) vectors.ute.push_back(j);
    const Call a(flag, heads(4, 2)), b(vectors, heads(4, 2));
    a.run(), b.run();
    EXPECT_EQ(a.out(), b.out());
    EXPECT_EQ(a.lse(), b.lse());
}

/// Keys and values of tiles that are empty for all rows except the first 128 are not read for other rows.
TEST_P(HopperForward, EmptyTilesAreSkipped) {
    constexpr int64_t n = 512;
    const Call call(causal_document_mask(n, {128, n}), heads(2, 1));
    write_values(call.context(), call.keys(), [&](int64_t i) {
        const bool first = i / GetParam() / 2 < 128;
        return first ? std::nan("") : Philox{12, 0}.normal(static_cast<uint64_t>(i));
    });
    call.run();
    const auto out = call.out();
    for (int64_t i = 0; i < std::ssize(out); ++i)
        ASSERT_EQ(std::isnan(out[static_cast<size_t>(i)]), i / GetParam() / 3 < 128 && i / GetParam() % 3 < 2)
            << "row " << i / GetParam() / 3 << ", head " << i / GetParam() % 3;
}

TEST_P(HopperForward, TheSameBitsInEveryRun) {
    const Call call(causal_document_mask(3000, {700, 900, 3000}), heads(16, 4));
    call.run();
    const auto out = call.out(), lse = call.lse();
    for (int i = 0; i < 30; ++i) {
        for (int k = 0; k < 10; ++k) call.run();
        ASSERT_EQ(call.out(), out) << "after " << 10 * i + 11 << " runs";
        ASSERT_EQ(call.lse(), lse);
    }
}

INSTANTIATE_TEST_SUITE_P(HeadDims, HopperForward, testing::Values(64, 128, 256));

}  // namespace
}  // namespace colonnade
