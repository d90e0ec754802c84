#include "layers/rmsnorm.h"

#include "tests/support/device_case.h"

namespace colonnade {
namespace {

/// Norm of in + delta over rows of `width`, with all outputs of its backward.
template <typename T>
struct Norm {
    int64_t rows, width;
    std::vector<T> in = random_values<T>(rows * width, 1), delta = random_values<T>(rows * width, 2);
    std::vector<T> weight = random_values<T>(width, 3), dout = random_values<T>(rows * width, 4);
    std::vector<T> sum = std::vector<T>(in.size()), out = std::vector<T>(in.size()), din = std::vector<T>(in.size());
    std::vector<T> rstd = std::vector<T>(static_cast<size_t>(rows)), dweight = std::vector<T>(weight.size());

    RmsNormForward forward_args() {
        return {.out = tensor_of(out, {rows, width}),
                .rstd = tensor_of(rstd, {rows}),
                .sum = tensor_of(sum, {rows, width}),
                .in = tensor_of(in, {rows, width}),
                .delta = tensor_of(delta, {rows, width}),
                .weight = tensor_of(weight, {width}),
                .eps = 1e-3};
    }
    RmsNormBackward backward_args() {
        return {.din = tensor_of(din, {rows, width}),
                .dweight = tensor_of(dweight, {width}),
                .dout = tensor_of(dout, {rows, width}),
                .in = tensor_of(sum, {rows, width}),
                .rstd = tensor_of(rstd, {rows}),
                .weight = tensor_of(weight, {width})};
    }
    void run() {
        rmsnorm_forward({}, forward_args());
        rmsnorm_backward({}, backward_args());
    }
};

TEST(RmsNorm, ForwardIsTheFormula) {
    Norm<float> n{4, 37};
    n.run();
    for (size_t r = 0; r < 4; ++r) {
        double square = 0;
        for (size_t j = 0; j < 37; ++j) {
            const float s = n.in[r * 37 + j] + n.delta[r * 37 + j];
            EXPECT_EQ(n.sum[r * 37 + j], s);
            square += static_cast<double>(s) * s;
        }
        const double rstd = 1 / std::sqrt(square / 37 + 1e-3);
        EXPECT_FLOAT_EQ(n.rstd[r], static_cast<float>(rstd));
        for (size_t j = 0; j < 37; ++j)
            EXPECT_FLOAT_EQ(n.out[r * 37 + j], static_cast<float>(n.weight[j] * (n.sum[r * 37 + j] * rstd)));
    }
}

TEST(RmsNorm, SumsAreTakenInDouble) {
    Norm<float> n{1, 1 << 20};
    n.in.assign(n.in.size(), 0.1f);
    RmsNormForward args = n.forward_args();
    args.delta = args.sum = Tensor();
    rmsnorm_forward({}, args);
    const auto expected = static_cast<float>(1 / std::sqrt(0.1f * static_cast<double>(0.1f) + args.eps));
    EXPECT_NEAR(n.rstd[0], expected, std::nextafter(expected, 2 * expected) - expected);
}

TEST(RmsNorm, GradientsMatchDifferences) {
    Norm<double> n{5, 7};
    n.run();
    const auto loss = [&] {
        rmsnorm_forward({}, n.forward_args());
        return inner_product(n.out, n.dout);
    };
    const auto din = n.din;
    expect_gradient("in", n.in, din, loss);
    expect_gradient("delta", n.delta, din, loss);
    expect_gradient("weight", n.weight, n.dweight, loss);
}

TEST(RmsNorm, FloatEqualsDoubleToRounding) {
    Norm<float> single{9, 33};
    Norm<double> wide{9, 33};
    single.run();
    wide.run();
    expect_close(single.out, wide.out, 4);
    expect_close(single.din, wide.din, 8);
    expect_close(single.dweight, wide.dweight, 8);
}

TEST(RmsNorm, AliasesGiveTheSameBits) {
    Norm<float> plain{5, 19}, alias{5, 19};
    plain.run();
    RmsNormForward forward = alias.forward_args();
    forward.sum = forward.in;
    rmsnorm_forward({}, forward);
    EXPECT_EQ(alias.in, plain.sum);
    EXPECT_EQ(alias.out, plain.out);
    RmsNormBackward backward = alias.backward_args();
    backward.in = forward.sum;
    backward.din = backward.dout;
    rmsnorm_backward({}, backward);
    EXPECT_EQ(alias.dout, plain.din);
    EXPECT_EQ(alias.dweight, plain.dweight);

    // Without delta, out may alias in.
    Norm<float> bare{5, 19};
    bare.in = plain.sum;
    forward = bare.forward_args();
    forward.out = forward.in;
    forward.delta = forward.sum = Tensor();
    rmsnorm_forward({}, forward);
    EXPECT_EQ(bare.in, plain.out);
}

TEST(RmsNorm, Accumulates) {
    Norm<double> fresh{5, 7}, onto{5, 7};
    fresh.run();
    onto.din = random_values<double>(5 * 7, 5);
    onto.dweight = random_values<double>(7, 6);
    auto din = onto.din, dweight = onto.dweight;
    rmsnorm_forward({}, onto.forward_args());
    RmsNormBackward args = onto.backward_args();
    args.din_mode = Grad::accumulate;
    rmsnorm_backward({}, args);
    for (size_t i = 0; i < din.size(); ++i) din[i] += fresh.din[i];
    for (size_t i = 0; i < dweight.size(); ++i) dweight[i] += fresh.dweight[i];
    expect_close(onto.din, din, 2);
    expect_close(onto.dweight, dweight, 2);
}

TEST(RmsNorm, EmptyGradientsAreNotComputed) {
    Norm<double> whole{5, 7}, part{5, 7};
    whole.run();
    rmsnorm_forward({}, part.forward_args());
    RmsNormBackward args = part.backward_args();
    args.dweight = Tensor();
    rmsnorm_backward({}, args);
    EXPECT_EQ(part.din, whole.din);
    EXPECT_EQ(part.dweight, std::vector<double>(7));
}

// q/k norms work on heads inside packed rows of q, k and v.
TEST(RmsNorm, HeadsOfAPackedSliceEqualContiguousRows) {
    constexpr int64_t tokens = 5, heads = 3, dim = 6, all_heads = 7, first = 2;
    Norm<float> flat{tokens * heads, dim};
    flat.sum = flat.in;
    RmsNormForward forward = flat.forward_args();
    forward.delta = forward.sum = Tensor();
    rmsnorm_forward({}, forward);
    rmsnorm_backward({}, flat.backward_args());

    std::vector<float> qkv(tokens * all_heads * dim, 9), dqkv = qkv;
    const auto in_pack = [&](size_t i) { return (i / (heads * dim) * all_heads + first) * dim + i % (heads * dim); };
    for (size_t i = 0; i < flat.in.size(); ++i) {
        qkv[in_pack(i)] = flat.in[i];
        dqkv[in_pack(i)] = flat.dout[i];
    }
    const auto slice = [&](std::vector<float>& packed) {
        return tensor_of(packed, {tokens, all_heads, dim}).slice(1, first, first + heads);
    };
    Norm<float> packed{tokens * heads, dim};
    rmsnorm_forward({}, {.out = tensor_of(packed.out, {tokens, heads, dim}),
                         .rstd = tensor_of(packed.rstd, {tokens, heads}),
                         .in = slice(qkv),
                         .weight = tensor_of(packed.weight, {dim}),
                         .eps = 1e-3});
    rmsnorm_backward({}, {.din = slice(dqkv),
                          .dweight = tensor_of(packed.dweight, {dim}),
                          .dout = slice(dqkv),
                          .in = slice(qkv),
                          .rstd = tensor_of(packed.rstd, {tokens * heads}),
                          .weight = tensor_of(packed.weight, {dim})});
    EXPECT_EQ(packed.out, flat.out);
    EXPECT_EQ(packed.rstd, flat.rstd);
    expect_close(packed.dweight, std::vector<double>(flat.dweight.begin(), flat.dweight.end()), 1);
    for (size_t i = 0; i < flat.din.size(); ++i) EXPECT_EQ(dqkv[in_pack(i)], flat.din[i]);
    EXPECT_EQ(std::ranges::count(dqkv, 9.0f), tokens * (all_heads - heads) * dim);  // the other heads
}

TEST(RmsNorm, SameBitsWithAnyThreads) {
    expect_same_with_any_threads([] {
        Norm<double> n{501, 37};  // double shows differences that float would round away
        n.run();
        n.out.insert(n.out.end(), n.din.begin(), n.din.end());
        n.out.insert(n.out.end(), n.dweight.begin(), n.dweight.end());
        return n.out;
    });
}

TEST(RmsNorm, RefusesBadShapes) {
    Norm<float> n{5, 7};
    RmsNormForward forward = n.forward_args();
    forward.sum = Tensor();
    expect_error(Exit::internal, "rmsnorm_forward: sum is [] f32 on cpu, expected [5, 7] f32",
                 [&] { rmsnorm_forward({}, forward); });
    forward = n.forward_args();
    forward.rstd = forward.rstd.slice(0, 0, 4);
    expect_error(Exit::internal, "rstd is [4] f32, expected one value for each row of in [5, 7] f32",
                 [&] { rmsnorm_forward({}, forward); });
    RmsNormBackward backward = n.backward_args();
    backward.weight = backward.weight.slice(0, 0, 6);
    expect_error(Exit::internal, "rmsnorm_backward: weight is [6] f32 on cpu, expected [7] f32",
                 [&] { rmsnorm_backward({}, backward); });
    backward = n.backward_args();
    backward.in = backward.in.view({35});
    expect_error(Exit::internal, "in is [35] f32, expected two or three dimensions",
                 [&] { rmsnorm_backward({}, backward); });
}

struct RmsNormOnDevice : DeviceCase {
    // Relative errors of 1 / sqrt and of a sum of squares, at most 64 additions deep, which the root halves.
    static constexpr double rstd_error = 40 * f32_rounding;
    // Error of r * (w d_out - s shrink) with factors of size 1 to 6 and a sum as above.
    static constexpr double gradient_error = 64 * 16 * f32_rounding;
    /// `rows` terms of mean size below 1, at most 64 additions deep, added to an existing number.
    static Bound weight_bound(int64_t rows) {
        return {.relative = 2 * f32_rounding, .absolute = 64 * static_cast<double>(rows) * f32_rounding};
    }

    void backward(const Twin& in, const Twin& rstd, const Twin& weight, const Twin& din, Grad mode) {
        const int64_t width = weight.device.size(0), rows = rstd.device.numel();
        const int rank = in.device.rank;
        const Twin dout =
            rank == 2 ? values({rows, width}, 5) : values({in.device.size(0), in.device.size(1), width}, 5);
        const Twin dweight = sums({width}, 6), again = sums({width}, 6), room = scratch(rmsnorm_scratch_bytes(width));
        const auto run_on = [&](const Context& ctx, auto of) {
            rmsnorm_backward(ctx, {.din = of(din),
                                   .din_mode = mode,
                                   .dweight = of(dweight),
                                   .dout = of(dout),
                                   .in = of(in),
                                   .rstd = of(rstd),
                                   .weight = of(weight),
                                   .scratch = of(room)});
        };
        run(run_on);
        expect_close("dweight", dweight, weight_bound(rows));
        rmsnorm_backward(context(), {.din = {},
                                     .dweight = again.device,
                                     .dout = dout.device,
                                     .in = in.device,
                                     .rstd = rstd.device,
                                     .weight = weight.device,
                                     .scratch = room.device});
        EXPECT_EQ(read(again.device), read(dweight.device)) << "the bits differ between runs";
    }
};

TEST_P(RmsNormOnDevice, RowsEqualDouble) {
    for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{5, 7},
                                      {33, 128},
                                      {9, 200},
                                      {2, 256},
                                      {5, 1000},
                                      {700, 1032},
                                      {3, 2048},
                                      {7, 2056},
                                      {300, 4104},
                                      {3, 8192},
                                      {2, 16384},
                                      {140, 8200},
                                      {4, 901},
                                      {3, 16001}}) {
        SCOPED_TRACE(fmt::format("{} rows of {}", rows, width));
        release();
        const Twin in = sixteenths({rows, width}, 1), delta = sixteenths({rows, width}, 2);
        const Twin weight = values({width}, 3), out = output({rows, width}), sum = output({rows, width});
        const Twin rstd = sum_output({rows});
        run([&](const Context& ctx, auto of) {
            rmsnorm_forward(ctx, {.out = of(out),
                                  .rstd = of(rstd),
                                  .sum = of(sum),
                                  .in = of(in),
                                  .delta = of(delta),
                                  .weight = of(weight),
                                  .eps = 1e-3});
        });
        expect_close("sum", sum, {});
        expect_close("rstd", rstd, {.relative = rstd_error});
        const Bound out_bound{.relative = rounding() + rstd_error + 2 * f32_rounding};
        expect_close("out", out, out_bound);

        // In place, without delta.
        const Twin alias = sixteenths({rows, width}, 1);
        run([&](const Context& ctx, auto of) {
            rmsnorm_forward(ctx,
                            {.out = of(alias), .rstd = of(rstd), .in = of(alias), .weight = of(weight), .eps = 1e-3});
        });
        expect_close("out in place", alias, out_bound);

        const Bound din_bound{.relative = rounding(), .absolute = gradient_error};
        const Twin fresh = output({rows, width}), onto = values({rows, width}, 4);
        backward(in, rstd, weight, fresh, Grad::overwrite);
        expect_close("din", fresh, din_bound);
        backward(in, rstd, weight, onto, Grad::accumulate);
        expect_close("din onto", onto, din_bound);
    }
}

// q/k norms: heads inside packed rows; the gradient overwrites d_out.
TEST_P(RmsNormOnDevice, HeadsEqualDouble) {
    struct Size {
        int64_t tokens, heads, all_heads, dim;
    };
    for (const auto& [tokens, heads, all_heads, dim] :
         {Size{5, 3, 7, 6}, {6, 5, 8, 64}, {650, 32, 34, 64}, {9, 4, 6, 128}, {7, 3, 5, 256}, {3, 2, 3, 80}}) {
        SCOPED_TRACE(fmt::format("{} tokens of {} heads of {}", tokens, heads, dim));
        release();
        const Twin qkv = sixteenths({tokens, all_heads, dim}, 1), weight = values({dim}, 2);
        const Twin in = qkv.slice(1, 1, 1 + heads), out = output({tokens, all_heads, dim});
        const Twin rstd = sum_output({tokens * heads});
        run([&](const Context& ctx, auto of) {
            rmsnorm_forward(
                ctx,
                {.out = of(out.slice(1, 0, heads)), .rstd = of(rstd), .in = of(in), .weight = of(weight), .eps = 1e-6});
        });
        expect_close("rstd", rstd, {.relative = rstd_error});
        expect_close("out", out, {.relative = rounding() + rstd_error + 2 * f32_rounding});

        const Twin fresh = output({tokens, all_heads, dim});
        backward(in, rstd, weight, fresh.slice(1, 1, 1 + heads), Grad::overwrite);
        expect_close("din", fresh, {.relative = rounding(), .absolute = gradient_error});

        const Twin packed = values({tokens, all_heads, dim}, 7), d = packed.slice(1, 1, 1 + heads);
        const Twin dweight = sums({dim}, 6), room = scratch(rmsnorm_scratch_bytes(dim));
        run([&](const Context& ctx, auto of) {
            rmsnorm_backward(ctx, {.din = of(d),
                                   .dweight = of(dweight),
                                   .dout = of(d),
                                   .in = of(in),
                                   .rstd = of(rstd),
                                   .weight = of(weight),
                                   .scratch = of(room)});
        });
        expect_close("din in place", packed, {.relative = rounding(), .absolute = gradient_error});
        expect_close("dweight", dweight, weight_bound(tokens * heads));
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, RmsNormOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
