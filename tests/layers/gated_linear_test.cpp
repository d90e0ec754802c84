#include "layers/gated_linear.h"

#include <set>

#include "layers/hopper/gated_linear_tiles.h"
#include "layers/linear.h"
#include "layers/swiglu.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

TEST(GatedLinearTiles, EveryTileOnce) {
    for (const auto& [rows, columns, group] : {std::tuple{1, 1, 8}, {7, 3, 8}, {8, 5, 8}, {19, 4, 8}, {128, 70, 16}}) {
        std::set<std::pair<int, int>> seen;
        for (int t = 0; t < rows * columns; ++t) {
            const hopper::GatedTile tile = hopper::gated_tile(t, rows, columns, group);
            EXPECT_TRUE(tile.row_block >= 0 && tile.row_block < rows && tile.column_block >= 0 &&
                        tile.column_block < columns);
            seen.insert({tile.row_block, tile.column_block});
        }
        EXPECT_EQ(std::ssize(seen), rows * columns);
    }
}

TEST(GatedLinearTiles, NeighboursShareOperands) {
    std::set<int> rows, columns;
    for (int t = 640; t < 640 + 66; ++t) {
        const hopper::GatedTile tile = hopper::gated_tile(t, 128, 70, 8);
        rows.insert(tile.row_block), columns.insert(tile.column_block);
    }
    EXPECT_EQ(rows.size(), 8u);
    EXPECT_EQ(columns.size(), 9u);
}

TEST(GateUpSwiglu, RefusesBadShapes) {
    std::vector<float> out(3 * 5), gate_up(3 * 10), in(3 * 7), weight(10 * 7), bias(10);
    GateUpSwigluForward args{.out = tensor_of(out, {3, 5}),
                             .gate_up = tensor_of(gate_up, {3, 10}),
                             .in = tensor_of(in, {3, 7}),
                             .weight = tensor_of(weight, {10, 7}),
                             .bias = tensor_of(bias, {10})};
    args.weight = args.weight.slice(0, 0, 9);
    expect_error(Exit::internal, "gate_up_swiglu_forward: weight is [9, 7] f32 on cpu, expected [10, 7] f32",
                 [&] { gate_up_swiglu_forward({}, args); });
    args.weight = tensor_of(weight, {10, 7});
    args.gate_up = args.gate_up.slice(1, 0, 8);
    expect_error(Exit::internal, "gate_up_swiglu_forward: gate_up is [3, 8] f32 on cpu, expected [3, 10] f32",
                 [&] { gate_up_swiglu_forward({}, args); });
}

struct Shape {
    int64_t tokens, hidden, ffn;
    bool bias = false;
};

struct GateUpSwigluOnDevice : DeviceCase {
    Twin in, weight, bias, gate_up, out;

    /// Whole numbers: their products and sums are exact in f32, so gate_up has one rounding for any order of summation.
    Twin integers(std::initializer_list<int64_t> shape, uint64_t stream) {
        auto numbers = random_values<double>(Tensor(nullptr, DType::u8, shape).numel(), stream);
        for (double& v : numbers) v = std::clamp(std::nearbyint(v), -3.0, 3.0);
        return twin(dtype(), shape, numbers);
    }
    void make(const Shape& s) {
        release();
        in = integers({s.tokens, s.hidden}, 1), weight = integers({2 * s.ffn, s.hidden}, 2);
        bias = s.bias ? integers({2 * s.ffn}, 3) : Twin();
        gate_up = output({s.tokens, 2 * s.ffn}), out = output({s.tokens, s.ffn});
    }
    GateUpSwigluForward args(auto of) const {
        return {.out = of(out), .gate_up = of(gate_up), .in = of(in), .weight = of(weight), .bias = of(bias)};
    }
    /// gate_up equals the product, and out equals swiglu_forward of it bit by bit.
    void expect_both(const GateUpSwigluForward& found) {
        expect_close("gate_up", gate_up, {.relative = rounding()});
        const Twin again = output({out.device.size(0), out.device.size(1)});
        swiglu_forward(context(), {.out = again.device, .gate_up = found.gate_up});
        EXPECT_EQ(read(again.device), read(found.out));
    }
};

TEST_P(GateUpSwigluOnDevice, EqualsDouble) {
    for (const Shape& s : {Shape{1, 64, 8},
                           {128, 64, 128},
                           {5, 7, 3},
                           {256, 512, 128},
                           {300, 264, 704, true},
                           {129, 1000, 72},
                           {64, 448, 64, true},
                           {700, 520, 1024, true}}) {
        SCOPED_TRACE(fmt::format("{} x {} -> {}", s.tokens, s.hidden, s.ffn));
        make(s);
        run([&](const Context& ctx, auto of) { gate_up_swiglu_forward(ctx, args(of)); });
        expect_both(args([](const Twin& t) { return t.device; }));
    }
}

/// More tiles than multiprocessors, so that a CTA computes several, and the last group of row blocks is incomplete.
TEST_P(GateUpSwigluOnDevice, ManyTiles) {
    make(on_gpu() ? Shape{2700, 392, 2056, true} : Shape{70, 40, 72, true});
    run([&](const Context& ctx, auto of) { gate_up_swiglu_forward(ctx, args(of)); });
    expect_both(args([](const Twin& t) { return t.device; }));
}

TEST_P(GateUpSwigluOnDevice, RealNumbersEqualTheTwoCalls) {
    const int64_t tokens = 260, hidden = 896, ffn = 328;
    release();
    in = values({tokens, hidden}, 1), weight = values({2 * ffn, hidden}, 2), bias = values({2 * ffn}, 3);
    gate_up = output({tokens, 2 * ffn}), out = output({tokens, ffn});
    run([&](const Context& ctx, auto of) { gate_up_swiglu_forward(ctx, args(of)); });
    const double spread = 8 * std::sqrt(static_cast<double>(hidden));  // larger than any sum
    expect_close("gate_up", gate_up, {.relative = rounding(), .absolute = spread * 64 * f32_rounding});
    const Twin two_calls = output({tokens, 2 * ffn});
    linear_forward(context(), {.out = two_calls.device, .in = in.device, .weight = weight.device, .bias = bias.device});
    const auto found = read(gate_up.device), expected = read(two_calls.device);
    for (size_t i = 0; i < found.size(); ++i)
        ASSERT_NEAR(found[i], expected[i], 2 * rounding() * std::abs(expected[i]) + spread * 64 * f32_rounding);
}

TEST_P(GateUpSwigluOnDevice, RowsMayBeStrided) {
    const int64_t tokens = 200, hidden = 136, ffn = 136;
    release();
    in = integers({tokens, hidden + 8}, 1), weight = integers({2 * ffn, hidden + 16}, 2);
    gate_up = output({tokens, 2 * ffn + 24}), out = output({tokens, ffn + 8});
    run([&](const Context& ctx, auto of) {
        gate_up_swiglu_forward(ctx, {.out = of(out.slice(1, 8, ffn + 8)),
                                     .gate_up = of(gate_up.slice(1, 16, 2 * ffn + 16)),
                                     .in = of(in.slice(1, 0, hidden)),
                                     .weight = of(weight.slice(1, 8, hidden + 8))});
    });
    expect_close("gate_up", gate_up, {.relative = rounding()});
    const Twin again = output({tokens, ffn + 8});
    swiglu_forward(context(),
                   {.out = again.device.slice(1, 8, ffn + 8), .gate_up = gate_up.device.slice(1, 16, 2 * ffn + 16)});
    const auto found = read(out.device), expected = read(again.device);
    for (size_t i = 0; i < found.size(); ++i)
        ASSERT_TRUE(found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]))) << i;
}

TEST_P(GateUpSwigluOnDevice, SameBitsInEveryRun) {
    const int64_t tokens = 520, hidden = 512, ffn = 264;
    release();
    in = values({tokens, hidden}, 1), weight = values({2 * ffn, hidden}, 2), bias = {};
    std::vector<double> first[2];
    for (int n = 0; n < 3; ++n) {
        gate_up = output({tokens, 2 * ffn}), out = output({tokens, ffn});
        gate_up_swiglu_forward(context(), args([](const Twin& t) { return t.device; }));
        if (n == 0) first[0] = read(gate_up.device), first[1] = read(out.device);
        EXPECT_EQ(read(gate_up.device), first[0]);
        EXPECT_EQ(read(out.device), first[1]);
    }
}

TEST(DownSwiglu, RefusesBadShapes) {
    std::vector<float> gate_up(3 * 10), dswiglu(3 * 5), dout(3 * 7), weight(7 * 5);
    DownSwigluBackward args{.dgate_up = tensor_of(gate_up, {3, 10}),
                            .dswiglu = tensor_of(dswiglu, {3, 5}),
                            .dout = tensor_of(dout, {3, 7}),
                            .weight = tensor_of(weight, {7, 5}),
                            .gate_up = tensor_of(gate_up, {3, 10})};
    args.dswiglu = args.dswiglu.slice(1, 0, 4);
    expect_error(Exit::internal, "down_swiglu_backward: dswiglu is [3, 4] f32 on cpu, expected [3, 5] f32",
                 [&] { down_swiglu_backward({}, args); });
    args.dswiglu = tensor_of(dswiglu, {3, 5});
    args.dout = args.dout.slice(1, 0, 6);
    expect_error(Exit::internal, "down_swiglu_backward: dout is [3, 6] f32 on cpu, expected [3, 7] f32",
                 [&] { down_swiglu_backward({}, args); });
}

struct DownSwigluOnDevice : GateUpSwigluOnDevice {
    Twin dout, dswiglu;  ///< gate_up also receives the result

    /// The product of whole numbers has one rounding for any order of summation: the gradients have the bits of the two
    /// calls.
    void make(const Shape& s) {
        release();
        dout = integers({s.tokens, s.hidden}, 1), weight = integers({s.hidden, s.ffn}, 2);
        gate_up = values({s.tokens, 2 * s.ffn}, 3), dswiglu = output({s.tokens, s.ffn});
    }
    DownSwigluBackward args(auto of, const Twin& dgate_up) const {
        return {.dgate_up = of(dgate_up),
                .dswiglu = of(dswiglu),
                .dout = of(dout),
                .weight = of(weight),
                .gate_up = of(gate_up)};
    }
    /// Bound of dgate_up: roundings of dswiglu and of itself, and those of f32 if 1 + gate * (1 - s) nearly vanishes.
    Bound bound(int64_t hidden) const {
        return {.relative = 2.1 * rounding(), .absolute = 512 * std::sqrt(static_cast<double>(hidden)) * f32_rounding};
    }
    std::vector<double> two_calls(const Shape& s) {
        const Twin again = values({s.tokens, 2 * s.ffn}, 3), product = output({s.tokens, s.ffn});
        linear_backward(context(), {.din = product.device, .dout = dout.device, .weight = weight.device});
        swiglu_backward(context(), {.dgate_up = again.device, .dout = product.device, .gate_up = again.device});
        return read(again.device);
    }
    void check_in_place(const Shape& s) {
        make(s);
        run([&](const Context& ctx, auto of) { down_swiglu_backward(ctx, args(of, gate_up)); });
        expect_close("dgate_up", gate_up, bound(s.hidden));
        EXPECT_EQ(read(gate_up.device), two_calls(s));
    }
};

TEST_P(DownSwigluOnDevice, EqualsDoubleAndTheTwoCalls) {
    for (const Shape& s : {Shape{1, 64, 8},
                           {128, 64, 256},
                           {5, 7, 3},
                           {256, 512, 128},
                           {300, 264, 704},
                           {129, 1000, 72},
                           {64, 448, 64},
                           {200, 1544, 328},
                           {700, 520, 1024}}) {
        SCOPED_TRACE(fmt::format("{} x {} -> {}", s.tokens, s.hidden, s.ffn));
        check_in_place(s);
    }
}

/// More tiles than multiprocessors, so that a CTA computes several, and the last ones are incomplete.
TEST_P(DownSwigluOnDevice, ManyTiles) {
    check_in_place(on_gpu() ? Shape{2300, 392, 2056} : Shape{70, 40, 72});
}

TEST_P(DownSwigluOnDevice, KeepsGateUpUnlessItIsAliased) {
    const Shape s{260, 136, 328};
    make(s);
    const auto before = read(gate_up.device);
    const Twin dgate_up = output({s.tokens, 2 * s.ffn});
    run([&](const Context& ctx, auto of) { down_swiglu_backward(ctx, args(of, dgate_up)); });
    expect_close("dgate_up", dgate_up, bound(s.hidden));
    EXPECT_EQ(read(dgate_up.device), two_calls(s));
    EXPECT_EQ(read(gate_up.device), before);
}

TEST_P(DownSwigluOnDevice, RowsMayBeStrided) {
    const int64_t tokens = 200, hidden = 136, ffn = 136;
    release();
    dout = integers({tokens, hidden + 8}, 1), weight = integers({hidden, ffn + 16}, 2);
    gate_up = values({tokens, 2 * ffn + 24}, 3), dswiglu = output({tokens, ffn});
    const auto before = read(gate_up.device);
    run([&](const Context& ctx, auto of) {
        const Tensor inner = of(gate_up.slice(1, 16, 2 * ffn + 16));
        down_swiglu_backward(ctx, {.dgate_up = inner,
                                   .dswiglu = of(dswiglu),
                                   .dout = of(dout.slice(1, 0, hidden)),
                                   .weight = of(weight.slice(1, 8, ffn + 8)),
                                   .gate_up = inner});
    });
    expect_close("dgate_up", gate_up, bound(hidden));
    const auto after = read(gate_up.device);
    for (size_t i = 0; i < after.size(); ++i) {
        const auto column = static_cast<int64_t>(i) % (2 * ffn + 24);
        const bool outside = column < 16 || column >= 2 * ffn + 16;
        ASSERT_TRUE(!outside || after[i] == before[i]) << i;
    }
}

TEST_P(DownSwigluOnDevice, SameBitsInEveryRun) {
    const int64_t tokens = 520, hidden = 512, ffn = 264;
    std::vector<double> first;
    for (int n = 0; n < 3; ++n) {
        release();
        dout = values({tokens, hidden}, 1), weight = values({hidden, ffn}, 2);
        gate_up = values({tokens, 2 * ffn}, 3), dswiglu = output({tokens, ffn});
        down_swiglu_backward(context(), args([](const Twin& t) { return t.device; }, gate_up));
        if (n == 0) first = read(gate_up.device);
        EXPECT_EQ(read(gate_up.device), first);
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, DownSwigluOnDevice, every_device(), name_of_device);
INSTANTIATE_TEST_SUITE_P(Devices, GateUpSwigluOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
