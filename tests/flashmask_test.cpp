// links: attention
#include "attention/flashmask.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>

#include "attention/dense.h"
#include "attention/mask_families.h"
#include "attention/measure.h"
#include "expect_error.h"
#include "random_mask.h"

namespace colonnade {
namespace {

// Worst relative error against the oracle in double. f32: sums of up to some hundred rounded terms; f64: rounding.
constexpr double f32_bound = 2e-6, f64_bound = 1e-14;

void expect_dense(const ColumnMask& mask, AttentionSize size, const std::string& name) {
    for (const DType dtype : {DType::f32, DType::f64}) {
        size.dtype = dtype;
        const auto e = check_flashmask(mask, size);
        EXPECT_LE(e.worst(), dtype == DType::f32 ? f32_bound : f64_bound) << fmt::format(
            "{} {}: batch {}, {} x {}, heads {}/{}/{}, head_dim {}, tiles {} x {}: out {}, lse {}, dq {}, dk {}, dv {}",
            name, name_of(dtype), mask.batch, mask.rows, mask.columns, size.heads, size.kv_heads, mask.heads,
            size.head_dim, size.tile_rows, size.tile_columns, e.out, e.lse, e.dq, e.dk, e.dv);
    }
}

TEST(FlashMask, EqualsDenseForEveryFamily) {
    for (const int64_t n : {65, 127})
        for (const MaskFamily& family : mask_families())
            expect_dense(family.build(default_parameters(n, n, 4, 3)), {.heads = 4, .kv_heads = 2, .head_dim = 16},
                         std::string(family.name));
}

TEST(FlashMask, EqualsDenseForEveryFamilyWithinASlidingWindow) {
    for (const MaskFamily& family : mask_families()) {
        const ColumnMask mask = family.build(default_parameters(150, 150, 2, 3));
        if (mask.causal)
            expect_dense(mask.with_sliding_window(41), {.heads = 2, .kv_heads = 1, .head_dim = 8},
                         std::string(family.name));
    }
}

TEST(FlashMask, EqualsDenseForAnyMask) {
    for (uint64_t seed = 0; seed < 120; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        // Mask heads of 1, of each query head, and of groups that cut across those of the key/value heads.
        const ColumnMask mask =
            random_column_mask(seed, 1 + s % 2, std::array<int64_t, 4>{1, 2, 3, 6}[seed % 4], s * 17 % 83, s * 29 % 71);
        const AttentionSize size{.heads = 6,
                                 .kv_heads = std::array<int64_t, 4>{1, 2, 3, 6}[seed / 4 % 4],
                                 .head_dim = 1 + s % 11,
                                 .tile_rows = 1 + s * 5 % 33,
                                 .tile_columns = 1 + s * 3 % 21};
        expect_dense(mask, size, fmt::format("seed {}", seed));
    }
}

TEST(FlashMask, AnyLength) {
    for (const int64_t rows : {0, 1, 63, 64, 65, 129})
        for (const int64_t columns : {0, 1, 63, 64, 65, 129})
            expect_dense(causal_mask(rows, columns), {.heads = 2, .kv_heads = 1, .head_dim = 8}, "causal");
}

TEST(FlashMask, AnyHeadDim) {
    for (const int64_t dim : {1, 3, 31, 64, 80, 255, 256})
        expect_dense(causal_document_mask(100, {30, 90}), {.heads = 2, .kv_heads = 2, .head_dim = dim},
                     "causal_document");
}

TEST(FlashMask, SlicesOfABatchDiffer) {
    expect_dense(stack({causal_mask(70, 70), causal_document_mask(70, {20, 70}), qk_sparse_mask(70, {{0, 9}})}),
                 {.heads = 2, .kv_heads = 2, .head_dim = 8}, "stacked");
}

/// Operands of one call; a row packs [q heads | k heads | v heads].
template <typename T = double>
struct Call {
    ColumnMask mask;
    int64_t heads, kv_heads, dim;
    TilePlan plan = make_tile_plan(mask);
    std::vector<T> qkv, dqkv, out, dout, lse;

    Call(ColumnMask m, int64_t heads_, int64_t kv_heads_, int64_t dim_)
        : mask(std::move(m)), heads(heads_), kv_heads(kv_heads_), dim(dim_) {
        const int64_t n = mask.batch * mask.rows;
        require(mask.rows == mask.columns, "packed rows need as many queries as keys");
        const auto draw = [](std::vector<T>& v, int64_t count, uint64_t stream) {
            for (int64_t i = 0; i < count; ++i)
                v.push_back(static_cast<T>(Philox{5, stream}.normal(static_cast<uint64_t>(i))));
        };
        draw(qkv, n * width(), 0);
        draw(dout, n * heads * dim, 1);
        out.resize(dout.size());
        dqkv.assign(qkv.size(), -7);
        lse.resize(static_cast<size_t>(n * heads));
    }
    int64_t width() const { return (heads + 2 * kv_heads) * dim; }
    Tensor part(std::vector<T>& v, int64_t first, int64_t count) {
        return Tensor(v.data(), dtype_of<T>(), {mask.batch, mask.rows, heads + 2 * kv_heads, dim})
            .slice(2, first, first + count);
    }
    Tensor q() { return part(qkv, 0, heads); }
    Tensor k() { return part(qkv, heads, kv_heads); }
    Tensor v() { return part(qkv, heads + kv_heads, kv_heads); }
    Tensor whole(std::vector<T>& x) { return {x.data(), dtype_of<T>(), {mask.batch, mask.rows, heads, dim}}; }
    Tensor lse_view() { return {lse.data(), dtype_of<T>(), {mask.batch, heads, mask.rows}}; }
    double scale() const { return 1 / std::sqrt(static_cast<double>(dim)); }
    FlashMaskForward forward() { return {whole(out), lse_view(), q(), k(), v(), mask, plan, scale()}; }
    FlashMaskBackward backward() {
        return {part(dqkv, 0, heads),
                part(dqkv, heads, kv_heads),
                part(dqkv, heads + kv_heads, kv_heads),
                whole(dout),
                whole(out),
                lse_view(),
                q(),
                k(),
                v(),
                mask,
                plan,
                scale()};
    }
    void run() {
        flashmask_forward({}, forward());
        flashmask_backward({}, backward());
    }
    DenseAttention dense() {
        const auto copy = [&](int64_t first, int64_t count) {
            std::vector<double> values;
            for (size_t row = 0; row < qkv.size(); row += static_cast<size_t>(width()))
                for (int64_t x = first * dim; x < (first + count) * dim; ++x)
                    values.push_back(qkv[row + static_cast<size_t>(x)]);
            return values;
        };
        DenseAttention a{.batch = mask.batch,
                         .rows = mask.rows,
                         .columns = mask.columns,
                         .heads = heads,
                         .kv_heads = kv_heads,
                         .head_dim = dim,
                         .scale = scale(),
                         .q = copy(0, heads),
                         .k = copy(heads, kv_heads),
                         .v = copy(heads + kv_heads, kv_heads),
                         .dout = dout};
        dense_attention(a, mask);
        return a;
    }
};

TEST(FlashMask, WorksOnSlicesOfPackedRows) {
    Call call(stack({causal_mask(70, 70), causal_document_mask(70, {20, 66})}), 4, 2, 5);
    call.run();
    const DenseAttention exact = call.dense();
    for (size_t i = 0; i < call.out.size(); ++i) ASSERT_NEAR(call.out[i], exact.out[i], 1e-12);
    for (size_t row = 0, i = 0, j = 0; row < call.dqkv.size(); row += static_cast<size_t>(call.width())) {
        for (size_t x = 0; x < 4 * 5; ++x) ASSERT_NEAR(call.dqkv[row + x], exact.dq[i++], 1e-12);
        for (size_t x = 0; x < 2 * 5; ++x, ++j) {
            ASSERT_NEAR(call.dqkv[row + 4 * 5 + x], exact.dk[j], 1e-12);
            ASSERT_NEAR(call.dqkv[row + 6 * 5 + x], exact.dv[j], 1e-12);
        }
    }
}

TEST(FlashMask, RowsThatSeeNothing) {
    // Rows 50.. are padding; rows 0..8 and their keys see and are seen by nobody, in tiles that others use.
    Call call(prefix_lm_document_mask(100, {50}, {20}), 2, 1, 4);
    for (int64_t j = 0; j < 100; ++j)
        call.mask.ute[static_cast<size_t>(j)] = std::max(call.mask.ute[static_cast<size_t>(j)], j < 50 ? 8 : 0);
    for (int64_t j = 0; j < 8; ++j) call.mask.lts[static_cast<size_t>(j)] = call.mask.ute[static_cast<size_t>(j)];
    call.plan = make_tile_plan(call.mask);
    call.run();
    const double infinity = std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < 100; ++i) {
        const bool sees = i >= 8 && i < 50;
        for (int64_t h = 0; h < 2; ++h) {
            EXPECT_EQ(call.lse[static_cast<size_t>(h * 100 + i)] == -infinity, !sees);
            for (int64_t d = 0; d < 4; ++d) EXPECT_EQ(call.out[static_cast<size_t>((i * 2 + h) * 4 + d)] == 0, !sees);
        }
        for (int64_t x = 0; x < call.width(); ++x) {
            const double gradient = call.dqkv[static_cast<size_t>(i * call.width() + x)];
            EXPECT_EQ(gradient == 0, !sees) << "row " << i << ", element " << x;
            EXPECT_TRUE(std::isfinite(gradient));
        }
    }
}

TEST(FlashMask, HiddenTilesAreNeverRead) {
    // Documents of whole tiles: what one holds must not reach the others, not even as NaN; nor must the padding.
    Call clean(document_mask(320, {64, 192, 256}), 2, 2, 8), dirty = clean;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto spoil = [&](int64_t i) { return (i >= 64 && i < 192) || i >= 256; };
    for (int64_t i = 0; i < 320; ++i) {
        if (!spoil(i)) continue;
        std::fill_n(dirty.qkv.begin() + i * dirty.width(), dirty.width(), nan);
        std::fill_n(dirty.dout.begin() + i * 16, 16, nan);
    }
    clean.run();
    dirty.run();
    for (int64_t i = 0; i < 320; ++i) {
        if (spoil(i) && i < 256) continue;
        for (int64_t x = 0; x < 16; ++x)
            ASSERT_EQ(clean.out[static_cast<size_t>(i * 16 + x)], dirty.out[static_cast<size_t>(i * 16 + x)]);
        for (int64_t x = 0; x < clean.width(); ++x)
            ASSERT_EQ(clean.dqkv[static_cast<size_t>(i * clean.width() + x)],
                      dirty.dqkv[static_cast<size_t>(i * clean.width() + x)]);
    }
}

template <typename T>
void expect_same_bits(int64_t heads, int64_t kv_heads, int64_t dim) {
    const int threads = omp_get_max_threads();
    const auto bits = [&](int count) {
        omp_set_num_threads(count);
        Call<T> call(causal_document_mask(700, {300, 690}), heads, kv_heads, dim);
        call.run();
        return std::tuple{call.out, call.lse, call.dqkv};
    };
    const auto alone = bits(1);
    for (const int count : {2, 3, 5}) EXPECT_TRUE(bits(count) == alone) << count << " threads";
    omp_set_num_threads(threads);
}

TEST(FlashMask, SameBitsForAnyNumberOfThreads) {
    expect_same_bits<double>(6, 2, 24);
    expect_same_bits<float>(2, 1, 128);  // the usual size of a head, for which OpenBLAS has kernels of its own
}

TEST(FlashMask, GradientsMatchCentralDifferences) {
    Call call(global_sliding_window_mask(9, 1, 2, 3), 2, 1, 3);
    call.run();
    const auto loss = [&] {
        flashmask_forward({}, call.forward());
        double sum = 0;
        for (size_t i = 0; i < call.out.size(); ++i) sum += call.out[i] * call.dout[i];
        return sum;
    };
    double peak = 0, worst = 0;
    for (size_t i = 0; i < call.qkv.size(); ++i) {
        const double value = call.qkv[i], step = 1e-5;
        call.qkv[i] = value + step;
        const double above = loss();
        call.qkv[i] = value - step;
        const double below = loss();
        call.qkv[i] = value;
        worst = std::max(worst, std::abs((above - below) / (2 * step) - call.dqkv[i]));
        peak = std::max(peak, std::abs(call.dqkv[i]));
    }
    EXPECT_LE(worst / peak, 1e-8);
}

TEST(FlashMask, CountsAsAttention) {
    Call call(causal_mask(70, 70), 1, 1, 4);
    Profile profile;
    flashmask_forward({.profile = &profile}, call.forward());
    EXPECT_EQ(profile.seconds().count("attention"), 1u);
    EXPECT_EQ(profile.seconds().size(), 1u);
}

TEST(FlashMask, RefusesOperandsThatDoNotFit) {
    Call call(causal_mask(70, 70), 4, 2, 6), other(causal_mask(80, 80), 3, 2, 6);
    const auto forward = [&](const std::string& part, auto&& damage) {
        FlashMaskForward args = call.forward();
        damage(args);
        expect_error(Exit::internal, part, [&] { flashmask_forward({}, args); });
    };
    forward("v is [1, 70, 2, 6] f64 on cpu, expected", [](auto& a) { a.v.stride[3] = 2; });
    forward("v is [1, 70, 2, 6] f64 on cpu, expected [1, 69, 2, 6] f64", [](auto& a) { a.k = a.k.slice(1, 0, 69); });
    forward("out is [1, 70, 2, 6] f64", [](auto& a) { a.out = a.out.slice(2, 0, 2); });
    forward("out is [1, 70, 4, 6] f64 on cpu, expected [1, 70, 4, 6] f64 on cpu, each head",
            [](auto& a) { a.out.stride[1] = 5; });
    forward("q is [1, 1, 4, 6] f64 on cpu, expected [1, 1, 4, 6] f64 on cpu, each head", [](auto& a) {
        a.q = a.q.slice(1, 0, 1);
        a.q.stride[1] = 0;
    });
    forward("v is [1, 70, 2, 6] f32", [](auto& a) { a.v.dtype = DType::f32; });
    forward("lse is [1, 4, 70] f32", [](auto& a) { a.lse.dtype = DType::f32; });
    forward("q is [1, 70, 4, 6] f64 on cuda", [](auto& a) { a.q.device = Device::cuda; });
    forward("head_dim is 0", [](auto& a) { a.q = a.q.slice(3, 0, 0); });
    forward("mask of batch 1, 1 heads, 70 x 70 for batch 1, 4 heads, 69 x 70", [](auto& a) {
        a.q = a.q.slice(1, 0, 69);
        a.out = a.out.slice(1, 0, 69);
        a.lse = Tensor(a.lse.data, DType::f64, {1, 4, 69});
    });
    expect_error(Exit::internal, "3 heads do not share 2 kv_heads", [&] { flashmask_forward({}, other.forward()); });
    expect_error(Exit::internal, "a plan of batch 1, 1 heads, 5 x 5 blocks", [&] {
        call.plan = make_tile_plan(call.mask, 16, 16);
        call.plan.tile_rows = 64;
        flashmask_forward({}, call.forward());
    });
    call.plan = make_tile_plan(call.mask);
    expect_error(Exit::internal, "dk is [1, 70, 1, 6]", [&] {
        FlashMaskBackward args = call.backward();
        args.dk = args.dk.slice(2, 0, 1);
        flashmask_backward({}, args);
    });
    expect_error(Exit::config, "flashmask has no kernel for device cuda",
                 [&] { flashmask_forward({.device = Device::cuda}, call.forward()); });
}

}  // namespace
}  // namespace colonnade
