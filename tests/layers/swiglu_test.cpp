#include "layers/swiglu.h"

#include "tests/support/device_case.h"

namespace colonnade {
namespace {

template <typename T>
struct Swiglu {
    int64_t tokens, ffn;
    std::vector<T> gate_up = random_values<T>(tokens * 2 * ffn, 1), dout = random_values<T>(tokens * ffn, 2);
    std::vector<T> out = std::vector<T>(dout.size()), dgate_up = std::vector<T>(gate_up.size());

    void forward() {
        swiglu_forward({}, {.out = tensor_of(out, {tokens, ffn}), .gate_up = tensor_of(gate_up, {tokens, 2 * ffn})});
    }
    void backward(std::vector<T>& into) {
        swiglu_backward({}, {.dgate_up = tensor_of(into, {tokens, 2 * ffn}),
                             .dout = tensor_of(dout, {tokens, ffn}),
                             .gate_up = tensor_of(gate_up, {tokens, 2 * ffn})});
    }
};

TEST(Swiglu, ForwardIsTheFormula) {
    Swiglu<float> s{3, 5};
    s.gate_up[0] = -200;  // exp(200) overflows a float: silu is still 0
    s.gate_up[1] = 200;   // silu(x) is x
    s.forward();
    for (size_t t = 0; t < 3; ++t)
        for (size_t j = 0; j < 5; ++j) {
            const double gate = s.gate_up[t * 10 + j], up = s.gate_up[t * 10 + 5 + j];
            const double expected = gate / (1 + std::exp(-gate)) * up;
            EXPECT_NEAR(s.out[t * 5 + j], expected, 4e-7 * std::abs(expected) + 1e-30);
        }
}

TEST(Swiglu, GradientMatchesDifferences) {
    Swiglu<double> s{3, 5};
    s.backward(s.dgate_up);
    expect_gradient("gate_up", s.gate_up, s.dgate_up, [&] {
        s.forward();
        return inner_product(s.out, s.dout);
    });
}

TEST(Swiglu, FloatEqualsDoubleToRounding) {
    Swiglu<float> single{9, 33};
    Swiglu<double> wide{9, 33};
    single.backward(single.dgate_up);
    wide.backward(wide.dgate_up);
    expect_close(single.dgate_up, wide.dgate_up, 4);
}

TEST(Swiglu, GradientMayReplaceItsInput) {
    Swiglu<float> plain{3, 37}, alias{3, 37};
    plain.backward(plain.dgate_up);
    alias.backward(alias.gate_up);
    EXPECT_EQ(alias.gate_up, plain.dgate_up);
}

TEST(Swiglu, SameBitsWithAnyThreads) {
    expect_same_with_any_threads([] {
        Swiglu<float> s{501, 37};
        s.forward();
        s.backward(s.dgate_up);
        s.out.insert(s.out.end(), s.dgate_up.begin(), s.dgate_up.end());
        return s.out;
    });
}

TEST(Swiglu, RefusesBadShapes) {
    Swiglu<float> s{3, 5};
    const Tensor out = tensor_of(s.out, {3, 5}), gate_up = tensor_of(s.gate_up, {3, 10});
    expect_error(Exit::internal, "swiglu_forward: gate_up is [3, 9] f32 on cpu, expected [3, 10] f32",
                 [&] { swiglu_forward({}, {.out = out, .gate_up = gate_up.slice(1, 0, 9)}); });
    expect_error(Exit::internal, "swiglu_backward: dgate_up is [2, 10] f32 on cpu, expected [3, 10] f32",
                 [&] { swiglu_backward({}, {.dgate_up = gate_up.slice(0, 0, 2), .dout = out, .gate_up = gate_up}); });
}

struct SwigluOnDevice : DeviceCase {};

TEST_P(SwigluOnDevice, EqualsDouble) {
    for (const auto& [tokens, ffn] :
         {std::pair<int64_t, int64_t>{3, 5}, {1, 8}, {5, 264}, {7, 2048}, {3, 2120}, {4, 1001}}) {
        release();
        auto numbers = random_values<double>(tokens * 2 * ffn, 1);
        numbers[0] = -200;  // exp(200) overflows a float: silu is still 0
        numbers[1] = 200;   // silu(x) is x
        const Twin gate_up = twin(dtype(), {tokens, 2 * ffn}, numbers), out = output({tokens, ffn + 8});
        run([&](const Context& ctx, auto of) {
            swiglu_forward(ctx, {.out = of(out.slice(1, 8, ffn + 8)), .gate_up = of(gate_up)});
        });
        // The relative error of the exponential is its argument, below 88, times a rounding.
        const double relative = rounding() + 128 * f32_rounding;
        expect_close("out", out, {.relative = relative, .absolute = 1e-30});

        // 1 + gate * (1 - s) cancels; its factors are below 6. The gradient may replace its input.
        const Bound bound{.relative = relative, .absolute = 16 * 36 * f32_rounding};
        const Twin dout = values({tokens, ffn}, 2), dgate_up = output({tokens, 2 * ffn});
        run([&](const Context& ctx, auto of) {
            swiglu_backward(ctx, {.dgate_up = of(dgate_up), .dout = of(dout), .gate_up = of(gate_up)});
        });
        expect_close("dgate_up", dgate_up, bound);
        run([&](const Context& ctx, auto of) {
            swiglu_backward(ctx, {.dgate_up = of(gate_up), .dout = of(dout), .gate_up = of(gate_up)});
        });
        EXPECT_EQ(read(gate_up.device), read(dgate_up.device));
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, SwigluOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
