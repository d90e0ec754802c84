// Tests that fit both devices run on both: f32 and f64 on the CPU, bf16 on a GPU.
#include "attention/flashmask.h"

#include <gtest/gtest.h>
#include <omp.h>

#include "attention/mask_families.h"
#include "tests/support/attention_call.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_mask.h"
#include "tests/support/random_walk.h"

namespace colonnade {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();

class FlashMask : public testing::TestWithParam<Device> {
  protected:
    void SetUp() override {
        if (on_gpu() && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    bool on_gpu() const { return GetParam() == Device::cuda; }
    Context context() const { return context_on(GetParam()); }
    DType widest() const { return on_gpu() ? DType::bf16 : DType::f64; }
    /// One of the GPU's head dims, selected by `turn`; `any` on the CPU.
    int64_t dim(int64_t any, size_t turn = 0) const {
        return on_gpu() ? std::array<int64_t, 4>{64, 128, 96, 256}[turn % 4] : any;
    }

    /// On the CPU the bound of the worst relative error is tighter than that of check_flashmask(): the rounding error
    /// of sums of up to some hundred terms. Rounding errors of logits grow with the logits.
    void expect_dense(const ColumnMask& mask, AttentionSize size, const std::string& name) const {
        const double logits = std::max(1.0, size.range * size.range / 4);
        for (const DType dtype : on_gpu() ? std::vector{DType::bf16} : std::vector{DType::f32, DType::f64}) {
            size.dtype = dtype;
            const auto [e, bounds] = check_flashmask(context(), mask, size);
            const bool held = on_gpu() ? e.within(bounds) : e.worst() <= logits * (dtype == DType::f32 ? 2e-6 : 1e-14);
            EXPECT_TRUE(held) << fmt::format(
                "{} {}: batch {}, {} x {}, heads {}/{}/{}, head_dim {}, tiles {} x {}: out {}, lse {}, dq {}, dk {}, "
                "dv {}; bounds out {}, lse {}, dq {}, dk {}, dv {}",
                name, name_of(dtype), mask.batch, mask.rows, mask.columns, size.heads, size.kv_heads, mask.heads,
                size.head_dim, size.tile_rows, size.tile_columns, e.out, e.lse, e.dq, e.dk, e.dv, bounds.out,
                bounds.lse, bounds.dq, bounds.dk, bounds.dv);
        }
    }
};

INSTANTIATE_TEST_SUITE_P(On, FlashMask, testing::Values(Device::cpu, Device::cuda),
                         [](const auto& test) { return name_of(test.param); });

TEST_P(FlashMask, EqualsDenseForEveryFamily) {
    size_t turn = 0;
    for (const int64_t n : on_gpu() ? std::vector<int64_t>{65, 127, 193, 321} : std::vector<int64_t>{65, 127})
        for (const MaskFamily& family : mask_families())
            expect_dense(family.build(default_parameters(n, n, 4, 3)),
                         {.heads = 4, .kv_heads = 2, .head_dim = dim(16, turn++)}, std::string(family.name));
}

TEST_P(FlashMask, EqualsDenseForEveryFamilyWithinASlidingWindow) {
    size_t turn = 0;
    for (const MaskFamily& family : mask_families()) {
        const ColumnMask mask = family.build(default_parameters(150, 150, 2, 3));
        if (mask.causal)
            expect_dense(mask.with_sliding_window(41), {.heads = 2, .kv_heads = 1, .head_dim = dim(8, turn++)},
                         std::string(family.name));
    }
}

/// Windows that end within many branches, which ranges cannot say: deep trees of a few long sequences, and of many
/// short ones.
TEST_P(FlashMask, EqualsDenseForTreesWithinAWindow) {
    size_t turn = 0;
    int of_positions = 0;
    for (uint64_t seed = 0; seed < 16; ++seed) {
        const int64_t n = on_gpu() ? 100 + static_cast<int64_t>(seed * 53 % 600)
                                   : 40 + static_cast<int64_t>(seed * 17 % 90),
                      longest = seed % 4 == 0 ? 12 : 0;
        const auto walk = random_walk(seed, n, longest);
        for (const int64_t window : {int64_t{3}, int64_t{7}, n / 6}) {
            const ColumnMask tree = tree_mask(n, walk).with_sliding_window(window, tree_positions(n, walk));
            of_positions += tree.position_window > 0;
            // The positions of the sheets of a batch differ.
            expect_dense(seed % 3 == 0 ? stack({causal_document_mask(n, {n / 3, n}), tree}) : tree,
                         {.heads = 4, .kv_heads = 2, .head_dim = dim(8, turn++)},
                         fmt::format("seed {}, window {}", seed, window));
        }
    }
    EXPECT_GT(of_positions, 15);
}

TEST_P(FlashMask, EqualsDenseForAnyMaskWithPositions) {
    for (uint64_t seed = 0; seed < 48; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        const int64_t n = (on_gpu() ? 4 : 1) * (s * 17 % 83) + s % 4;
        const ColumnMask mask = random_positions_mask(seed, 1 + s % 2, std::array<int64_t, 4>{1, 2, 3, 6}[seed % 4], n);
        AttentionSize size{.heads = 6,
                           .kv_heads = std::array<int64_t, 4>{1, 2, 3, 6}[seed / 4 % 4],
                           .head_dim = dim(1 + s % 11, seed / 4)};
        if (!on_gpu()) size.tile_rows = 1 + s * 5 % 33, size.tile_columns = 1 + s * 3 % 21;
        expect_dense(mask, size, fmt::format("seed {}", seed));
    }
}

TEST_P(FlashMask, EqualsDenseForAnyMask) {
    const int64_t longer = on_gpu() ? 4 : 1;  // several of the GPU's tiles, which are always 64 x 64
    for (uint64_t seed = 0; seed < 120; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        // Mask heads: one, one per query head, and groups that do not align with those of the key/value heads.
        const ColumnMask mask =
            random_column_mask(seed, 1 + s % 2, std::array<int64_t, 4>{1, 2, 3, 6}[seed % 4],
                               longer * (s * 17 % 83) + s / 2 % longer, longer * (s * 29 % 71) + s % longer);
        AttentionSize size{.heads = 6,
                           .kv_heads = std::array<int64_t, 4>{1, 2, 3, 6}[seed / 4 % 4],
                           .head_dim = dim(1 + s % 11, seed / 16)};
        if (!on_gpu()) size.tile_rows = 1 + s * 5 % 33, size.tile_columns = 1 + s * 3 % 21;
        expect_dense(mask, size, fmt::format("seed {}", seed));
    }
}

TEST_P(FlashMask, AnyLength) {
    size_t turn = 0;
    for (const int64_t rows : {0, 1, 63, 64, 65, 129})
        for (const int64_t columns : {0, 1, 63, 64, 65, 129})
            // A row that sees a single key has gradients of 0. Their error is absolute, and has no bound on the CPU.
            for (const bool causal : on_gpu() ? std::vector{true, false} : std::vector{true})
                expect_dense(causal ? causal_mask(rows, columns) : full_mask(rows, columns),
                             {.heads = 2, .kv_heads = 1, .head_dim = dim(8, turn++)}, causal ? "causal" : "full");
}

TEST_P(FlashMask, AnyHeadDim) {
    for (const int64_t head_dim :
         on_gpu() ? std::vector<int64_t>{64, 96, 128, 256} : std::vector<int64_t>{1, 3, 31, 64, 80, 255, 256})
        for (const int64_t kv_heads : {1, 2, 4})
            expect_dense(causal_document_mask(300, {130, 290}),
                         {.heads = 4, .kv_heads = kv_heads, .head_dim = head_dim}, "causal_document");
}

TEST_P(FlashMask, SheetsOfABatchDiffer) {
    expect_dense(stack({causal_mask(170, 170), causal_document_mask(170, {20, 170}), qk_sparse_mask(170, {{0, 9}})}),
                 {.heads = 2, .kv_heads = 2, .head_dim = dim(8)}, "stacked");
}

TEST_P(FlashMask, LongRowsOfTiles) {
    // More than 32 tiles in a row block take more than one word of a GPU's bit maps.
    const int64_t n = 2200;
    expect_dense(causal_document_mask(n, {70, 1000, n}), {.heads = 1, .kv_heads = 1, .head_dim = dim(16)}, "causal");
    expect_dense(global_sliding_window_mask(n, 70, 100, 40), {.heads = 1, .kv_heads = 1, .head_dim = dim(16)},
                 "global");
}

TEST_P(FlashMask, LargeLogits) {
    size_t turn = 0;
    for (const double range : {16.0, 64.0}) {  // logits of some hundred and some thousand
        const AttentionSize size{.heads = 2, .kv_heads = 1, .head_dim = dim(32, turn++), .range = range};
        expect_dense(causal_mask(200, 200), size, fmt::format("range {}", range));
        expect_dense(document_mask(200, {3, 150}), size, fmt::format("range {}", range));
    }
}

TEST_P(FlashMask, WorksOnSlicesOfPackedRows) {
    for (const size_t turn : {0u, 1u, 2u, 3u}) {
        AttentionCall call(context(), stack({causal_mask(170, 170), causal_document_mask(170, {20, 166})}),
                           {4, 2, dim(5, turn), widest()});
        call.run();
        const auto [errors, bounds] = call.check();
        EXPECT_TRUE(errors.within(bounds)) << "head_dim " << dim(5, turn) << ", worst " << errors.worst();
    }
}

TEST_P(FlashMask, RowsThatSeeNothing) {
    // Rows from 50 on are padding. Rows 0 to 7 see nothing and their keys are seen by nothing, in tiles that other rows
    // use.
    const int64_t n = 100;
    ColumnMask mask = prefix_lm_document_mask(n, {50}, {20});
    for (int64_t j = 0; j < n; ++j)
        mask.ute[static_cast<size_t>(j)] = std::max(mask.ute[static_cast<size_t>(j)], j < 50 ? 8 : 0);
    for (int64_t j = 0; j < 8; ++j) mask.lts[static_cast<size_t>(j)] = mask.ute[static_cast<size_t>(j)];
    AttentionCall call(context(), mask, {2, 1, dim(4), widest()});
    call.run();
    for (int64_t i = 0; i < n; ++i) {
        const bool sees = i >= 8 && i < 50;
        for (int64_t h = 0; h < 2; ++h) EXPECT_EQ(call.lse[static_cast<size_t>(h * n + i)] == -infinity, !sees);
        for (int64_t x = 0; x < call.out_width(); ++x)
            EXPECT_EQ(call.out[static_cast<size_t>(i * call.out_width() + x)] == 0, !sees) << "row " << i;
        for (int64_t x = 0; x < call.width(); ++x) {
            const double gradient = call.dqkv[static_cast<size_t>(i * call.width() + x)];
            EXPECT_EQ(gradient == 0, !sees) << "row " << i << ", element " << x;
            EXPECT_TRUE(std::isfinite(gradient));
        }
    }
}

TEST_P(FlashMask, ColumnsThatNobodySees) {
    // Every third key is hidden, in tiles that others use. Its gradients are exactly 0.
    const int64_t n = 150, heads = 2, kv_heads = 1;
    ColumnMask mask = causal_document_mask(n, {n});
    for (size_t j = 0; j < static_cast<size_t>(n); j += 3) mask.lts[j] = 0;
    AttentionCall call(context(), mask, {heads, kv_heads, dim(4), widest()});
    call.run();
    for (int64_t j = 0; j < n; ++j)
        for (int64_t x = call.out_width(); x < call.width(); ++x)
            EXPECT_EQ(call.dqkv[static_cast<size_t>(j * call.width() + x)] == 0, j % 3 == 0) << "key " << j;
}

TEST_P(FlashMask, HiddenTilesAreNeverRead) {
    // Documents of whole pairs of tiles: NaN in one of them, or in the padding, must not reach the others.
    const ColumnMask mask = document_mask(640, {128, 384, 512});
    const auto spoilt = [](int64_t i) { return (i >= 128 && i < 384) || i >= 512; };
    const auto row = [](const std::vector<double>& values, int64_t i, int64_t width) {
        return std::vector(values.begin() + i * width, values.begin() + (i + 1) * width);
    };
    for (const size_t turn : {0u, 1u, 2u, 3u}) {
        for (const bool deterministic : {true, false}) {
            Context ctx = context();
            ctx.deterministic = deterministic;
            const CallSize size{2, 2, dim(8, turn), widest()};
            AttentionCall clean(ctx, mask, size), dirty(ctx, mask, size);
            for (int64_t i = 0; i < mask.rows; ++i) {
                if (!spoilt(i)) continue;
                std::fill_n(dirty.qkv.begin() + i * dirty.width(), dirty.width(), nan);
                std::fill_n(dirty.dout.begin() + i * dirty.out_width(), dirty.out_width(), nan);
            }
            clean.run();
            dirty.run();
            for (int64_t i = 0; i < mask.rows; ++i) {
                if (spoilt(i) && i < 512) continue;
                ASSERT_EQ(row(clean.out, i, clean.out_width()), row(dirty.out, i, dirty.out_width())) << "row " << i;
                const auto expected = row(clean.dqkv, i, clean.width()), found = row(dirty.dqkv, i, dirty.width());
                if (deterministic)
                    ASSERT_EQ(expected, found) << "row " << i;
                else
                    ASSERT_TRUE(std::ranges::none_of(found, [](double x) { return std::isnan(x); })) << "row " << i;
            }
        }
    }
}

/// The bits of the results of both passes.
std::array<std::vector<uint64_t>, 3> bits_after_run(AttentionCall& call) {
    call.run();
    return {bits_of(call.out), bits_of(call.lse), bits_of(call.dqkv)};
}

TEST_P(FlashMask, OneMaskInTwoFormsGivesTheSameBits) {
    const int64_t n = 300;
    ColumnMask causal = full_mask(n, n), nothing = full_mask(n, n);
    causal.vectors = nothing.vectors = MaskVectors::lts_ute;
    for (int32_t j = 0; j < n; ++j) causal.ute.push_back(j), nothing.ute.push_back(0);
    causal.lts = nothing.lts = std::vector<int32_t>(static_cast<size_t>(n), static_cast<int32_t>(n));
    Context ctx = context();
    ctx.deterministic = true;
    for (const size_t turn : {0u, 1u, 2u, 3u}) {
        const CallSize size{2, 1, dim(8, turn), widest()};
        const auto bits = [&](const ColumnMask& mask) {
            AttentionCall call(ctx, mask, size);
            return bits_after_run(call);
        };
        EXPECT_TRUE(bits(causal_mask(n, n)) == bits(causal)) << "causal, head_dim " << size.dim;
        EXPECT_TRUE(bits(full_mask(n, n)) == bits(nothing)) << "full, head_dim " << size.dim;
    }
}

/// A window as ranges and as positions.
TEST_P(FlashMask, OneWindowInTwoFormsGivesTheSameBits) {
    const int64_t n = 300;
    ColumnMask ranges = causal_document_mask(n, {170, n}), positions = ranges;
    for (int32_t i = 0; i < n; ++i) positions.row_positions.push_back(i < 170 ? i : i - 170);
    ranges = ranges.with_sliding_window(70, positions.row_positions);
    ASSERT_EQ(ranges.position_window, 0);
    positions.position_window = 70;
    Context ctx = context();
    ctx.deterministic = true;
    for (const size_t turn : {0u, 1u, 2u, 3u}) {
        const CallSize size{2, 1, dim(8, turn), widest()};
        AttentionCall a(ctx, ranges, size), b(ctx, positions, size);
        EXPECT_TRUE(bits_after_run(a) == bits_after_run(b)) << "head_dim " << size.dim;
    }
}

TEST_P(FlashMask, SameBitsInEveryRun) {
    Context ctx = context();
    ctx.deterministic = true;
    const int runs = on_gpu() ? 250 : 3;
    for (const size_t turn : {0u, 1u, 2u, 3u}) {
        AttentionCall call(ctx, causal_document_mask(330, {100, 325}), {4, 2, dim(16, turn), widest()});
        const auto first = bits_after_run(call);
        for (int run = 1; run < runs; ++run) ASSERT_TRUE(bits_after_run(call) == first) << "run " << run;
        // Without `deterministic` only dQ may differ from run to run.
        call.ctx.deterministic = false;
        call.run();
        const std::vector<double> dqkv = call.dqkv;
        for (int run = 0; run < std::min(runs, 50); ++run) {
            call.run();
            ASSERT_TRUE(bits_of(call.out) == first[0] && bits_of(call.lse) == first[1]) << "run " << run;
            for (size_t row = 0; row < dqkv.size(); row += static_cast<size_t>(call.width()))
                for (size_t x = static_cast<size_t>(call.out_width()); x < static_cast<size_t>(call.width()); ++x)
                    ASSERT_EQ(call.dqkv[row + x], dqkv[row + x]) << "run " << run;
        }
    }
}

void expect_same_bits_with_any_threads(const CallSize& size) {
    const int threads = omp_get_max_threads();
    const auto bits = [&](int count) {
        omp_set_num_threads(count);
        AttentionCall call({}, causal_document_mask(700, {300, 690}), size);
        return bits_after_run(call);
    };
    const auto alone = bits(1);
    for (const int count : {2, 3, 5}) EXPECT_TRUE(bits(count) == alone) << count << " threads";
    omp_set_num_threads(threads);
}

TEST(FlashMaskOnCpu, SameBitsForAnyNumberOfThreads) {
    expect_same_bits_with_any_threads({6, 2, 24, DType::f64});
    // The usual head size, for which OpenBLAS has special kernels.
    expect_same_bits_with_any_threads({2, 1, 128, DType::f32});
}

TEST(FlashMaskOnCpu, GradientsMatchCentralDifferences) {
    AttentionCall call({}, global_sliding_window_mask(9, 1, 2, 3), {2, 1, 3});
    call.run();
    const auto loss = [&] {
        call.write();
        flashmask_forward({}, call.forward());
        const double* out = call.forward().out.as<double>();
        double sum = 0;
        for (size_t i = 0; i < call.dout.size(); ++i) sum += out[i] * call.dout[i];
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

TEST_P(FlashMask, CountsAsAttention) {
    AttentionCall call(context(), causal_mask(70, 70), {1, 1, dim(4), widest()});
    Profile profile;
    call.ctx.profile = &profile;
    flashmask_forward(call.ctx, call.forward());
    if (on_gpu()) call.ctx.gpu->collect_phases(profile);
    EXPECT_EQ(profile.seconds().count("attention"), 1u);
    EXPECT_EQ(profile.seconds().size(), 1u);
}

TEST(FlashMaskOnCpu, RefusesOperandsThatDoNotFit) {
    AttentionCall call({}, causal_mask(70, 70), {4, 2, 6}), other({}, causal_mask(80, 80), {3, 2, 6});
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
    forward("lse is [1, 4, 70] f32 on cpu", [](auto& a) { a.lse.dtype = DType::f32; });
    forward("lse is [1, 4, 70] f64 on cuda", [](auto& a) { a.lse.device = Device::cuda; });
    forward("q is [1, 70, 4, 6] f64 on cuda", [](auto& a) { a.q.device = Device::cuda; });
    forward("no kernel for bf16 on device cpu", [](auto& a) { a.q.dtype = DType::bf16; });
    forward("head_dim is 0", [](auto& a) { a.q = a.q.slice(3, 0, 0); });
    forward("mask of batch 1, 1 heads, 70 x 70 for batch 1, 4 heads, 69 x 70", [](auto& a) {
        a.q = a.q.slice(1, 0, 69);
        a.out = a.out.slice(1, 0, 69);
        a.lse = Tensor(a.lse.data, DType::f64, {1, 4, 69});
    });
    expect_error(Exit::internal, "3 heads, expected a multiple of the 2 kv_heads",
                 [&] { flashmask_forward({}, other.forward()); });
    expect_error(Exit::internal, "a plan of batch 1, 1 heads, 5 x 5 blocks", [&] {
        call.plan = make_tile_plan(call.mask, 16, 16);
        call.plan.tile_rows = 64;
        flashmask_forward({}, call.forward());
    });
    expect_error(Exit::internal, "a plan made for device cuda on device cpu", [&] {
        int32_t bounds = 0;
        call.make_plan();
        call.plan.gpu.bounds = Tensor(&bounds, DType::i32, {1}, Device::cuda);
        flashmask_forward({}, call.forward());
    });
    call.make_plan();
    expect_error(Exit::internal, "dk is [1, 70, 1, 6]", [&] {
        FlashMaskBackward args = call.backward();
        args.dk = args.dk.slice(2, 0, 1);
        flashmask_backward({}, args);
    });
    expect_error(Exit::internal, "flashmask has no kernel for f64 on device cuda",
                 [&] { flashmask_forward({.device = Device::cuda}, call.forward()); });
    EXPECT_EQ(flashmask_scratch_bytes(call.q()), 0);
}

TEST(FlashMaskOnGpu, RefusesOperandsThatDoNotFit) {
    if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
    const Context ctx = context_on(Device::cuda);
    AttentionCall call(ctx, causal_mask(70, 70), {4, 2, 64, DType::bf16}),
        other(ctx, causal_mask(70, 70), {4, 2, 80, DType::bf16});
    const auto backward = [&](Exit exit, const std::string& part, auto&& damage) {
        FlashMaskBackward args = call.backward();
        damage(args);
        expect_error(exit, part, [&] { flashmask_backward(ctx, args); });
    };
    backward(Exit::internal, "no kernel for f32 on device cuda", [](auto& a) { a.q.dtype = DType::f32; });
    backward(Exit::internal, "lse is [1, 4, 70] bf16 on cuda", [](auto& a) { a.lse.dtype = DType::bf16; });
    backward(Exit::internal, "dq is [1, 70, 4, 64] bf16 on cpu", [](auto& a) { a.dq.device = Device::cpu; });
    backward(Exit::internal, "expected whole multiples of 16 bytes", [](auto& a) { a.k.stride[1] += 4; });
    backward(Exit::internal, "expected whole multiples of 16 bytes",
             [](auto& a) { a.dv.data = static_cast<char*>(a.dv.data) + 8; });
    backward(Exit::internal, "flashmask: scratch is [0] u8", [](auto& a) { a.scratch = a.scratch.slice(0, 0, 0); });
    expect_error(Exit::config, "head_dim is 80: attention on a GPU has kernels for 64, 96, 128 and 256",
                 [&] { flashmask_forward(ctx, other.forward()); });
    call.mask.row_positions.resize(70);
    call.mask.position_window = 3;
    expect_error(Exit::internal, "a plan without positions for a mask with a window of 3 positions",
                 [&] { flashmask_forward(ctx, call.forward()); });
    call.plan = make_tile_plan(call.mask);
    expect_error(Exit::internal, "a plan made for device cpu on device cuda",
                 [&] { flashmask_forward(ctx, call.forward()); });
}

}  // namespace
}  // namespace colonnade
