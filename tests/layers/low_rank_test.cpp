#include "layers/low_rank.h"

#include "layers/linear.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

// --- Dropout ---------------------------------------------------------------------------------------------------------

template <typename T>
std::vector<T> dropped_ones(int64_t rows, int64_t width, const DropoutMask& mask) {
    std::vector<T> ones(static_cast<size_t>(rows * width), T{1}), out(ones.size(), T{9});
    dropout({}, {.out = tensor_of(out, {rows, width}), .in = tensor_of(ones, {rows, width}), .mask = mask});
    return out;
}

TEST(Dropout, KeepsTheRightShare) {
    for (const double p : {0.05, 0.5, 0.9}) {
        const auto out = dropped_ones<double>(300, 1001, {.p = p, .seed = 3, .stream = 5});
        double kept = 0;
        for (const double x : out) {
            ASSERT_TRUE(x == 0 || x == 1 / (1 - p)) << x;
            kept += x != 0;
        }
        const double n = static_cast<double>(out.size()), sigma = std::sqrt(n * p * (1 - p));
        EXPECT_NEAR(kept, n * (1 - p), 4 * sigma) << p;
    }
}

TEST(Dropout, AMaskIsAFunctionOfSeedAndStream) {
    const DropoutMask mask{.p = 0.5, .seed = 3, .stream = 5};
    EXPECT_EQ(dropped_ones<double>(30, 41, mask), dropped_ones<double>(30, 41, mask));
    EXPECT_NE(dropped_ones<double>(30, 41, mask), dropped_ones<double>(30, 41, {.p = 0.5, .seed = 3, .stream = 6}));
    EXPECT_NE(dropped_ones<double>(30, 41, mask), dropped_ones<double>(30, 41, {.p = 0.5, .seed = 4, .stream = 5}));
    // Every row has its own mask, which does not depend on the number of rows.
    const auto two = dropped_ones<double>(2, 41, mask), one = dropped_ones<double>(1, 41, mask);
    EXPECT_EQ(std::vector<double>(two.begin(), two.begin() + 41), one);
    EXPECT_NE(std::vector<double>(two.begin() + 41, two.end()), one);
    expect_same_with_any_threads([&] { return dropped_ones<float>(300, 401, mask); });
}

TEST(Dropout, SomeRowsHaveTheMaskThatTheyHaveAmongAll) {
    const DropoutMask whole{.p = 0.5, .seed = 3, .stream = 5};
    const std::vector<int32_t> rows{2, 7, 7, 29};
    DropoutMask some = whole;
    some.rows = view_of(rows);
    const auto all = dropped_ones<double>(30, 41, whole), found = dropped_ones<double>(4, 41, some);
    for (size_t i = 0; i < rows.size(); ++i)
        for (size_t j = 0; j < 41; ++j) EXPECT_EQ(found[i * 41 + j], all[static_cast<size_t>(rows[i]) * 41 + j]);
    expect_error(Exit::internal, "dropout: rows is [4] i32 on cpu, expected [3] i32",
                 [&] { dropped_ones<double>(3, 41, some); });
}

TEST(Dropout, NothingIsDroppedAtZero) {
    EXPECT_EQ(dropped_ones<double>(3, 7, {.p = 0, .seed = 1, .stream = 1}), std::vector<double>(21, 1.0));
}

struct DropoutOnDevice : DeviceCase {};

// The scale is a power of two: apart from rounding the devices give the same numbers, and the same zeros.
TEST_P(DropoutOnDevice, SameMaskOnEveryDevice) {
    for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{33, 64}, {7, 2056}, {5, 21}, {1, 3}}) {
        release();
        const Twin in = values({rows, width + 8}, 1).slice(1, 8, width + 8);
        std::vector<int32_t> among_more;
        for (int32_t row = 0; row < rows; ++row) among_more.push_back(3 * row + row % 2);
        const Twin mask_rows = indices(among_more);
        for (const bool some_rows : {false, true})
            for (const Grad mode : {Grad::overwrite, Grad::accumulate}) {
                const Twin out = mode == Grad::overwrite ? output({rows, width}) : values({rows, width}, 2);
                run([&](const Context& ctx, auto of) {
                    DropoutMask mask{.p = 0.5, .seed = 0x123456789abcdef, .stream = uint64_t{1} << 63 | 77};
                    if (some_rows) mask.rows = of(mask_rows);
                    dropout(ctx, {.out = of(out), .mode = mode, .in = of(in), .mask = mask});
                });
                expect_close("out", out, {.relative = mode == Grad::overwrite ? 0 : rounding()});
            }
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, DropoutOnDevice, every_device(), name_of_device);

// --- Adapters --------------------------------------------------------------------------------------------------------

// Two adapters of rank 3, on columns [2, 6) and [9, 14) of 14: like q and v without k.
template <typename T>
struct Adapters {
    static constexpr int64_t tokens = 6, in_features = 7, out_features = 14, rank = 3;
    std::vector<T> in = random_values<T>(tokens * in_features, 1), a = random_values<T>(2 * rank * in_features, 2);
    std::vector<T> b0 = random_values<T>(4 * rank, 3), b1 = random_values<T>(5 * rank, 4);
    std::vector<T> dout = random_values<T>(tokens * out_features, 5);
    std::vector<T> out = random_values<T>(tokens * out_features, 6), din = random_values<T>(tokens * in_features, 7);
    std::vector<T> da = std::vector<T>(a.size()), db0 = std::vector<T>(b0.size()), db1 = std::vector<T>(b1.size());
    std::vector<T> h = std::vector<T>(tokens * 2 * rank), dh = h, dropped = std::vector<T>(in.size());
    DropoutMask mask{};
    double scale = 1.75;

    LowRank weights() {
        return {.a = tensor_of(a, {2 * rank, in_features}),
                .slices = {{2, tensor_of(b0, {4, rank})}, {9, tensor_of(b1, {5, rank})}},
                .scale = scale};
    }
    void forward() {
        const LowRank w = weights();
        low_rank_forward({}, {.out = tensor_of(out, {tokens, out_features}),
                              .h = tensor_of(h, {tokens, 2 * rank}),
                              .in = tensor_of(in, {tokens, in_features}),
                              .weights = w,
                              .mask = mask,
                              .dropped = tensor_of(dropped, {tokens, in_features})});
    }
    void backward() {
        const LowRank w = weights(), g{.a = tensor_of(da, {2 * rank, in_features}),
                                       .slices = {{2, tensor_of(db0, {4, rank})}, {9, tensor_of(db1, {5, rank})}}};
        low_rank_backward({}, {.din = tensor_of(din, {tokens, in_features}),
                               .gradients = g,
                               .dh = tensor_of(dh, {tokens, 2 * rank}),
                               .dout = tensor_of(dout, {tokens, out_features}),
                               .h = tensor_of(h, {tokens, 2 * rank}),
                               .in = tensor_of(in, {tokens, in_features}),
                               .weights = w,
                               .mask = mask,
                               .dropped = tensor_of(dropped, {tokens, in_features})});
    }
};

TEST(LowRank, AddsTheDefinition) {
    using A = Adapters<double>;
    A l;
    std::vector<double> expected = l.out;
    const auto add = [&](const std::vector<double>& b, size_t first, size_t begin, size_t count) {
        for (size_t t = 0; t < A::tokens; ++t)
            for (size_t o = 0; o < count; ++o)
                for (size_t r = 0; r < A::rank; ++r)
                    for (size_t i = 0; i < A::in_features; ++i)
                        expected[t * A::out_features + begin + o] += 1.75 * b[o * A::rank + r] *
                                                                     l.a[(first + r) * A::in_features + i] *
                                                                     l.in[t * A::in_features + i];
    };
    add(l.b0, 0, 2, 4);
    add(l.b1, A::rank, 9, 5);
    l.forward();
    expect_close(l.out, expected, 64);
}

TEST(LowRank, GradientsMatchDifferences) {
    for (const double p : {0.0, 0.4}) {
        Adapters<double> l;
        l.mask = {.p = p, .seed = 1, .stream = 2};
        const std::vector<double> out = l.out, din = l.din;
        const auto loss = [&] {
            l.out = out;
            l.forward();
            return inner_product(l.out, l.dout);
        };
        loss();
        l.backward();
        for (size_t i = 0; i < din.size(); ++i) l.din[i] -= din[i];  // din is accumulated
        expect_gradient("in", l.in, l.din, loss);
        expect_gradient("a", l.a, l.da, loss);
        expect_gradient("b0", l.b0, l.db0, loss);
        expect_gradient("b1", l.b1, l.db1, loss);
        const std::vector<double> da = l.da, db = l.db1;
        loss();
        l.backward();
        for (size_t i = 0; i < da.size(); ++i) EXPECT_EQ(l.da[i], 2 * da[i]) << "gradients are accumulated";
        for (size_t i = 0; i < db.size(); ++i) EXPECT_EQ(l.db1[i], 2 * db[i]) << "gradients are accumulated";
    }
}

TEST(LowRank, ZeroBChangesNoBit) {
    Adapters<float> l;
    l.b0.assign(l.b0.size(), 0);
    l.b1.assign(l.b1.size(), 0);
    const std::vector<float> before = l.out;
    l.forward();
    EXPECT_EQ(l.out, before);
}

TEST(LowRank, RefusesBadShapes) {
    Adapters<float> l;
    l.b1.resize(4 * 3);
    LowRank w = {.a = tensor_of(l.a, {6, 7}), .slices = {{2, tensor_of(l.b0, {4, 3})}, {11, tensor_of(l.b1, {4, 3})}}};
    const auto forward = [&] {
        low_rank_forward({}, {.out = tensor_of(l.out, {6, 14}),
                              .h = tensor_of(l.h, {6, 6}),
                              .in = tensor_of(l.in, {6, 7}),
                              .weights = w});
    };
    expect_error(Exit::internal, "a slice of columns [11, 15) of 14", forward);
    w.slices.pop_back();
    expect_error(Exit::internal, "low_rank_forward: a is [6, 7] f32 on cpu, expected [3, 7] f32", forward);
}

struct LowRankOnDevice : DeviceCase {};

TEST_P(LowRankOnDevice, EqualsDouble) {
    for (const int64_t rank : {8, 16, 3}) {
        for (const double p : {0.0, 0.5}) {
            release();
            const int64_t tokens = 72, in_features = 40, widths[] = {48, 16}, out_features = 80;
            const DropoutMask mask{.p = p, .seed = 9, .stream = 4};
            const Twin in = values({tokens, in_features}, 1), a = values({2 * rank, in_features}, 2);
            const Twin b0 = values({widths[0], rank}, 3), b1 = values({widths[1], rank}, 4);
            const Twin out = values({tokens, out_features}, 5), h = output({tokens, 2 * rank});
            const Twin dout = values({tokens, out_features}, 6), din = values({tokens, in_features}, 7);
            const Twin da = sums({2 * rank, in_features}, 8), db0 = sums({widths[0], rank}, 9);
            const Twin db1 = sums({widths[1], rank}, 10), dh = output({tokens, 2 * rank});
            const Twin dropped = p > 0 ? output({tokens, in_features}) : Twin{};
            run([&](const Context& ctx, auto of) {
                const LowRank w{.a = of(a), .slices = {{0, of(b0)}, {64, of(b1)}}, .scale = 0.5};
                const LowRank g{.a = of(da), .slices = {{0, of(db0)}, {64, of(db1)}}};
                low_rank_forward(
                    ctx,
                    {.out = of(out), .h = of(h), .in = of(in), .weights = w, .mask = mask, .dropped = of(dropped)});
                low_rank_backward(ctx, {.din = of(din),
                                        .gradients = g,
                                        .dh = of(dh),
                                        .dout = of(dout),
                                        .h = of(h),
                                        .in = of(in),
                                        .weights = w,
                                        .mask = mask,
                                        .dropped = of(dropped)});
            });
            // A chain of two products of normal numbers, both stored rounded: six standard deviations of the first,
            // times one rounding for the stored product and one for the sum.
            const auto chain = [&](int64_t first, int64_t second) {
                return Bound{.relative = 2 * rounding(),
                             .absolute = 12 * (on_gpu() ? 0x1p-8 : 64 * f32_rounding) *
                                         std::sqrt(static_cast<double>(first * second))};
            };
            expect_close("h", h, chain(in_features, 1));
            expect_close("out", out, chain(in_features, rank));
            expect_close("din", din, chain(widths[0], 2 * rank));
            expect_close("da", da, chain(widths[0], tokens));
            expect_close("db0", db0, chain(in_features, tokens));
            expect_close("db1", db1, chain(in_features, tokens));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, LowRankOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
