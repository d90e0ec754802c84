#include "layers/linear.h"

#include "tests/support/device_case.h"

namespace colonnade {
namespace {

/// One linear layer with all outputs of its backward.
template <typename T>
struct Linear {
    int64_t tokens, in_features, out_features;
    std::vector<T> in = random_values<T>(tokens * in_features, 1);
    std::vector<T> weight = random_values<T>(out_features * in_features, 2);
    std::vector<T> bias = random_values<T>(out_features, 3);
    std::vector<T> dout = random_values<T>(tokens * out_features, 4);
    std::vector<T> out = std::vector<T>(dout.size()), din = std::vector<T>(in.size());
    std::vector<T> dweight = std::vector<T>(weight.size()), dbias = std::vector<T>(bias.size());

    void forward(bool with_bias = true) {
        linear_forward({}, {.out = tensor_of(out, {tokens, out_features}),
                            .in = tensor_of(in, {tokens, in_features}),
                            .weight = tensor_of(weight, {out_features, in_features}),
                            .bias = with_bias ? tensor_of(bias, {out_features}) : Tensor()});
    }
    LinearBackward gradients() {
        return {.din = tensor_of(din, {tokens, in_features}),
                .dweight = tensor_of(dweight, {out_features, in_features}),
                .dbias = tensor_of(dbias, {out_features}),
                .dout = tensor_of(dout, {tokens, out_features}),
                .in = tensor_of(in, {tokens, in_features}),
                .weight = tensor_of(weight, {out_features, in_features})};
    }
};

TEST(Linear, ForwardIsTheSumOverInputs) {
    for (const bool with_bias : {false, true}) {
        Linear<double> l{5, 7, 3};
        l.out.assign(l.out.size(), std::nan(""));  // must be overwritten
        l.forward(with_bias);
        std::vector<double> expected;
        for (size_t t = 0; t < 5; ++t)
            for (size_t o = 0; o < 3; ++o) {
                double sum = with_bias ? l.bias[o] : 0;
                for (size_t i = 0; i < 7; ++i) sum += l.in[t * 7 + i] * l.weight[o * 7 + i];
                expected.push_back(sum);
            }
        expect_close(l.out, expected, 8);
        Linear<float> single{5, 7, 3};
        single.forward(with_bias);
        expect_close(single.out, expected, 8);
    }
}

TEST(Linear, GradientsMatchDifferences) {
    Linear<double> l{5, 7, 3};
    linear_backward({}, l.gradients());
    const auto loss = [&] {
        l.forward();
        return inner_product(l.out, l.dout);
    };
    expect_gradient("in", l.in, l.din, loss);
    expect_gradient("weight", l.weight, l.dweight, loss);
    expect_gradient("bias", l.bias, l.dbias, loss);
}

TEST(Linear, Accumulates) {
    Linear<double> fresh{5, 7, 3}, onto{5, 7, 3};
    linear_backward({}, fresh.gradients());
    onto.din = random_values<double>(5 * 7, 5);
    onto.dweight = random_values<double>(3 * 7, 6);
    onto.dbias = random_values<double>(3, 7);
    auto din = onto.din, dweight = onto.dweight, dbias = onto.dbias;
    LinearBackward args = onto.gradients();
    args.din_mode = Grad::accumulate;
    linear_backward({}, args);
    for (size_t i = 0; i < din.size(); ++i) din[i] += fresh.din[i];
    for (size_t i = 0; i < dweight.size(); ++i) dweight[i] += fresh.dweight[i];
    for (size_t i = 0; i < dbias.size(); ++i) dbias[i] += fresh.dbias[i];
    expect_close(onto.din, din, 8);
    expect_close(onto.dweight, dweight, 8);
    expect_close(onto.dbias, dbias, 8);
}

TEST(Linear, Overwrites) {
    Linear<double> fresh{5, 7, 3}, over{5, 7, 3};
    linear_backward({}, fresh.gradients());
    over.dweight = random_values<double>(3 * 7, 6);
    LinearBackward args = over.gradients();
    args.dweight_mode = Grad::overwrite;
    linear_backward({}, args);
    EXPECT_EQ(over.dweight, fresh.dweight);
}

TEST(Linear, WithoutTokensTheGradientIsZero) {
    Linear<double> over{0, 7, 3}, onto{0, 7, 3};
    over.dweight = onto.dweight = random_values<double>(3 * 7, 6);
    LinearBackward args = over.gradients();
    args.dweight_mode = Grad::overwrite;
    linear_backward({}, args);
    EXPECT_EQ(over.dweight, std::vector<double>(over.dweight.size()));
    linear_backward({}, onto.gradients());
    EXPECT_EQ(onto.dweight, random_values<double>(3 * 7, 6));
}

TEST(Linear, EmptyGradientsAreNotComputed) {
    Linear<double> l{5, 7, 3}, whole{5, 7, 3};
    linear_backward({}, whole.gradients());
    LinearBackward args = l.gradients();
    args.dweight = args.dbias = Tensor();
    args.in = Tensor();  // a frozen weight needs no saved input
    linear_backward({}, args);
    EXPECT_EQ(l.din, whole.din);
    EXPECT_EQ(l.dweight, std::vector<double>(l.weight.size()));
    EXPECT_EQ(l.dbias, std::vector<double>(l.bias.size()));
}

TEST(Linear, SlicesOfWiderRowsEqualContiguousOnes) {
    Linear<double> l{5, 7, 3};
    l.forward();
    linear_backward({}, l.gradients());
    // in and din are columns 2..9 of wider rows, out and dout columns 1..4.
    std::vector<double> in(5 * 11, 9), din(5 * 11, 9), out(5 * 6, 9), dout(5 * 6, 9);
    for (size_t t = 0; t < 5; ++t) {
        std::copy_n(&l.in[t * 7], 7, &in[t * 11 + 2]);
        std::copy_n(&l.dout[t * 3], 3, &dout[t * 6 + 1]);
    }
    Linear<double> wide{5, 7, 3};
    LinearBackward args = wide.gradients();
    args.in = tensor_of(in, {5, 11}).slice(1, 2, 9);
    args.din = tensor_of(din, {5, 11}).slice(1, 2, 9);
    args.dout = tensor_of(dout, {5, 6}).slice(1, 1, 4);
    linear_forward({}, {.out = tensor_of(out, {5, 6}).slice(1, 1, 4),
                        .in = args.in,
                        .weight = args.weight,
                        .bias = tensor_of(wide.bias, {3})});
    linear_backward({}, args);
    EXPECT_EQ(wide.dweight, l.dweight);
    EXPECT_EQ(wide.dbias, l.dbias);
    for (size_t t = 0; t < 5; ++t) {
        for (size_t j = 0; j < 11; ++j) EXPECT_EQ(din[t * 11 + j], j < 2 || j >= 9 ? 9 : l.din[t * 7 + j - 2]);
        for (size_t j = 0; j < 6; ++j) EXPECT_EQ(out[t * 6 + j], j < 1 || j >= 4 ? 9 : l.out[t * 3 + j - 1]);
    }
}

TEST(Linear, BiasGradientIsSummedInDouble) {
    constexpr int64_t tokens = 1 << 16;
    Linear<float> l{tokens, 1, 2};
    l.dout.assign(l.dout.size(), 0.1f);
    LinearBackward args = l.gradients();
    args.din = args.dweight = Tensor();
    linear_backward({}, args);
    EXPECT_EQ(l.dbias, std::vector<float>(2, 0.1f * tokens));  // exact: tokens is a power of two
}

TEST(Linear, BiasGradientHasTheSameBitsWithAnyThreads) {
    expect_same_with_any_threads([] {
        Linear<double> l{301, 3, 37};
        for (double& d : l.dout) d /= 3;  // otherwise the sums would be exact in any order
        LinearBackward args = l.gradients();
        args.din = args.dweight = Tensor();
        linear_backward({}, args);
        return l.dbias;
    });
}

TEST(Linear, RefusesBadShapes) {
    Linear<float> l{5, 7, 3};
    LinearBackward args = l.gradients();
    args.dbias = args.dbias.slice(0, 0, 2);
    expect_error(Exit::internal, "linear_backward: dbias is [2] f32 on cpu, expected [3] f32",
                 [&] { linear_backward({}, args); });
    args = l.gradients();
    args.in = Tensor();
    expect_error(Exit::internal, "linear_backward: in is [] f32", [&] { linear_backward({}, args); });
    args = l.gradients();
    std::vector<double> wrong(5 * 3);
    args.dout = tensor_of(wrong, {5, 3});
    expect_error(Exit::internal, "dout is [5, 3] f64 on cpu, expected [5, 3] f32", [&] { linear_backward({}, args); });
    args = l.gradients();
    std::swap(args.dout.stride[0], args.dout.stride[1]);
    expect_error(Exit::internal, "dout [5, 3] f32 has no memory or its last dim is not contiguous",
                 [&] { linear_backward({}, args); });
}

struct LinearOnDevice : DeviceCase {};

TEST_P(LinearOnDevice, EqualsDouble) {
    for (const auto& [tokens, in_features, out_features] :
         {std::tuple<int64_t, int64_t, int64_t>{40, 24, 56}, {5, 8, 16}, {64, 128, 264}, {7, 5, 3}}) {
        release();
        const Twin in = values({tokens, in_features + 8}, 1).slice(1, 8, in_features + 8);
        const Twin weight = values({out_features, in_features}, 2), bias = values({out_features}, 3);
        // Sums of products of normal numbers: their mean size is below 1.
        const auto bound = [&](int64_t terms) {
            return Bound{.relative = rounding(), .absolute = static_cast<double>(terms * terms) * f32_rounding};
        };
        for (const Twin& added : {Twin{}, bias}) {
            const Twin out = output({tokens, out_features + 8});
            run([&](const Context& ctx, auto of) {
                linear_forward(
                    ctx,
                    {.out = of(out.slice(1, 0, out_features)), .in = of(in), .weight = of(weight), .bias = of(added)});
            });
            expect_close("out", out, bound(in_features + 1));
        }
        const Twin dout = values({tokens, out_features}, 4), dweight = sums({out_features, in_features}, 5);
        const Twin dbias = sums({out_features}, 6), room = scratch(linear_scratch_bytes(out_features));
        for (const Grad mode : {Grad::overwrite, Grad::accumulate}) {
            const Twin din = mode == Grad::overwrite ? output({tokens, in_features}) : values({tokens, in_features}, 7);
            run([&](const Context& ctx, auto of) {
                linear_backward(ctx, {.din = of(din),
                                      .din_mode = mode,
                                      .dweight = of(dweight),
                                      .dbias = of(dbias),
                                      .dout = of(dout),
                                      .in = of(in),
                                      .weight = of(weight),
                                      .scratch = of(room)});
            });
            Bound din_bound = bound(out_features + 1);
            // If cuBLASLt adds to a C in bf16, it rounds the product first: 2^-9 of a sum of out_features products of
            // normal numbers, which stays within six standard deviations.
            if (on_gpu() && mode == Grad::accumulate)
                din_bound.absolute += 0x1p-9 * 6 * std::sqrt(static_cast<double>(out_features));
            expect_close("din", din, din_bound);
        }
        const double sums_bound = static_cast<double>(2 * (tokens + 1) * (tokens + 1)) * f32_rounding;
        expect_close("dweight", dweight, {.relative = 2 * f32_rounding, .absolute = sums_bound});
        expect_close("dbias", dbias, {.relative = 2 * f32_rounding, .absolute = sums_bound});
    }
}

TEST_P(LinearOnDevice, BiasGradientOfManyRows) {
    for (const auto& [tokens, width] : {std::pair<int64_t, int64_t>{2500, 264}, {777, 300}, {4097, 40}, {1, 5}}) {
        release();
        const Twin dout = values({tokens, width + 8}, 1).slice(1, 8, width + 8), weight = values({width, 1}, 2);
        const Twin room = scratch(linear_scratch_bytes(width)), dbias = sums({width}, 3), again = sums({width}, 3);
        const auto add_to = [&](const Twin& sum) {
            run([&](const Context& ctx, auto of) {
                linear_backward(
                    ctx, {.din = {}, .dbias = of(sum), .dout = of(dout), .weight = of(weight), .scratch = of(room)});
            });
        };
        add_to(dbias);
        add_to(again);
        // `tokens` terms of mean size below 1, at most 64 additions deep.
        expect_close("dbias", dbias,
                     {.relative = 2 * f32_rounding, .absolute = 64 * static_cast<double>(tokens) * f32_rounding});
        EXPECT_EQ(read(again.device), read(dbias.device)) << "the bits differ between runs";
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, LinearOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
