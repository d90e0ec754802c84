#include "layers/rope.h"

#include <numeric>

#include "tests/support/device_case.h"

namespace colonnade {
namespace {

using Kind = RopeScaling::Kind;

struct Golden {
    const char* name;
    double theta;
    RopeScaling scaling;
    std::vector<double> inverse;
    double attention_factor;
};

// Values of transformers 5.17. For each row
//     config = LlamaConfig(hidden_size=256, num_attention_heads=4, head_dim=16, max_position_embeddings=131072,
//                          rope_parameters={"rope_type": ..., "rope_theta": ..., "factor": ..., the keys of the row})
//     inverse, attention_factor = ROPE_INIT_FUNCTIONS[rope_type](config, device="cpu")
// and LlamaRotaryEmbedding.compute_default_rope_parameters(config) for the first. It computes in float32: nine digits.
const std::vector<Golden> goldens{
    {"default",
     1e4,
     {},
     {1, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786, 0.00100000005, 0.000316227786},
     1},
    {"linear",
     1e4,
     {.kind = Kind::linear, .factor = 2.5},
     {0.400000006, 0.1264911, 0.0399999991, 0.0126491114, 0.00399999972, 0.00126491114, 0.000400000019, 0.000126491112},
     1},
    {"llama3",
     5e5,
     {.kind = Kind::llama3, .factor = 8, .original_max_position = 8192, .low_freq_factor = 1, .high_freq_factor = 4},
     {1, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022, 3.42810235e-05, 6.64786967e-06, 1.28917316e-06},
     1},
    {"yarn",
     1e6,
     {.kind = Kind::yarn, .factor = 4, .original_max_position = 32768},
     {1, 0.177827939, 0.0316227786, 0.00421755994, 0.000500000024, 4.44569851e-05, 7.90569356e-06, 1.40585337e-06},
     1.1386294361119891},
    {"yarn, truncate false",
     1e6,
     {.kind = Kind::yarn,
      .factor = 4,
      .original_max_position = 32768,
      .beta_fast = 16,
      .beta_slow = 2,
      .truncate = false},
     {1, 0.177827939, 0.0316227786, 0.00562341325, 0.000595679972, 4.44569851e-05, 7.90569356e-06, 1.40585337e-06},
     1.1386294361119891},
    {"yarn, attention_factor",
     1e4,
     {.kind = Kind::yarn, .factor = 40, .original_max_position = 4096, .attention_factor = 1.25},
     {1, 0.316227764, 0.100000001, 0.0239147246, 0.00512499968, 0.000849862176, 2.49999994e-05, 7.90569447e-06},
     1.25},
    {"yarn, mscale",
     1e4,
     {.kind = Kind::yarn, .factor = 40, .original_max_position = 4096, .mscale = 1, .mscale_all_dim = 0.707},
     {1, 0.316227764, 0.100000001, 0.0239147246, 0.00512499968, 0.000849862176, 2.49999994e-05, 7.90569447e-06},
     1.0857263992561355},
    // A context so short that the ramp has zero width, and a factor below 1 (head_dim 8).
    {"yarn, no ramp",
     1e4,
     {.kind = Kind::yarn, .factor = 0.5, .original_max_position = 8},
     {1, 0.200000003, 0.0199999996, 0.00200000009},
     1},
};

TEST(Rope, FrequenciesEqualTransformers) {
    for (const Golden& golden : goldens) {
        SCOPED_TRACE(golden.name);
        const auto found = rope_frequencies(std::ssize(golden.inverse) * 2, golden.theta, golden.scaling);
        EXPECT_DOUBLE_EQ(found.attention_factor, golden.attention_factor);
        ASSERT_EQ(found.inverse.size(), golden.inverse.size());
        // Float32 powers of theta: a few roundings of the exponent, each amplified by ln(theta).
        for (size_t i = 0; i < golden.inverse.size(); ++i)
            EXPECT_NEAR(found.inverse[i] / golden.inverse[i], 1, 1e-6) << i;
    }
}

TEST(Rope, RefusesBadScalingByKey) {
    const RopeScaling linear{.kind = Kind::linear, .factor = 2};
    const RopeScaling llama3{.kind = Kind::llama3, .factor = 8, .original_max_position = 8192};
    const RopeScaling yarn{.kind = Kind::yarn, .factor = 4, .original_max_position = 4096};
    const auto expect = [](const char* part, RopeScaling scaling, const std::function<void(RopeScaling&)>& change) {
        EXPECT_NO_THROW(rope_frequencies(16, 1e4, scaling));
        change(scaling);
        expect_error(Exit::data, part, [&] { rope_frequencies(16, 1e4, scaling); });
    };
    expect("rope_scaling.factor is 0, expected a finite number above 0", linear, [](RopeScaling& s) { s.factor = 0; });
    expect("rope_scaling.factor is nan", yarn, [](RopeScaling& s) { s.factor = std::nan(""); });
    expect("rope_scaling.factor is inf", llama3, [](RopeScaling& s) { s.factor = INFINITY; });
    expect("rope_scaling.original_max_position_embeddings is 0", llama3,
           [](RopeScaling& s) { s.original_max_position = 0; });
    expect("rope_scaling.low_freq_factor is -1", llama3, [](RopeScaling& s) { s.low_freq_factor = -1; });
    expect("rope_scaling.high_freq_factor is 1, expected a finite number above 1", llama3,
           [](RopeScaling& s) { s.high_freq_factor = 1; });
    expect("rope_scaling.original_max_position_embeddings is 0", yarn,
           [](RopeScaling& s) { s.original_max_position = 0; });
    expect("rope_scaling.beta_slow is 0", yarn, [](RopeScaling& s) { s.beta_slow = 0; });
    expect("rope_scaling.beta_fast is 1, expected a finite number above 1", yarn,
           [](RopeScaling& s) { s.beta_fast = 1; });
    expect("rope_scaling.attention_factor is -1, expected a finite number, zero or above", yarn,
           [](RopeScaling& s) { s.attention_factor = -1; });
    expect("rope_scaling.mscale is -1", yarn, [](RopeScaling& s) { s.mscale = -1; });
    expect("rope_scaling.mscale_all_dim is -1", yarn, [](RopeScaling& s) { s.mscale_all_dim = -1; });
    expect_error(Exit::data, "head_dim is 15, expected an even number", [] { rope_frequencies(15, 1e4, {}); });
    expect_error(Exit::data, "rope_theta is 1, expected a finite number above 1", [] { rope_frequencies(16, 1, {}); });
}

/// Rotates heads first..first+heads of packed rows at these positions.
template <typename T>
struct Rope {
    static constexpr int64_t heads = 2, dim = 6, all_heads = 4, first = 1;
    std::vector<int32_t> positions;
    int64_t tokens;
    RopeFrequencies frequencies =
        rope_frequencies(dim, 100, {.kind = Kind::yarn, .factor = 4, .original_max_position = 64});
    std::vector<T> cos, sin, packed;

    explicit Rope(std::vector<int32_t> positions_ = {0, 1, 2, 0, 5, 1000})
        : positions(std::move(positions_)), tokens(std::ssize(positions)) {
        cos.resize(static_cast<size_t>(tokens * dim / 2));
        sin.resize(cos.size());
        packed = random_values<T>(tokens * all_heads * dim, 1);
        rope_angles({}, {.cos = tensor_of(cos, {tokens, dim / 2}),
                         .sin = tensor_of(sin, {tokens, dim / 2}),
                         .positions = view_of(positions),
                         .frequencies = frequencies});
    }
    std::vector<T> rotated(std::vector<T> x, bool backward = false) {
        rope_apply({}, {.x = tensor_of(x, {tokens, all_heads, dim}).slice(1, first, first + heads),
                        .cos = tensor_of(cos, {tokens, dim / 2}),
                        .sin = tensor_of(sin, {tokens, dim / 2}),
                        .backward = backward});
        return x;
    }
};

TEST(Rope, RotatesPairsByPositionTimesFrequency) {
    Rope<double> rope;
    auto expected = rope.packed;
    for (size_t t = 0; t < rope.positions.size(); ++t)
        for (size_t h = Rope<double>::first; h < Rope<double>::first + Rope<double>::heads; ++h)
            for (size_t i = 0; i < 3; ++i) {
                double& a = expected[(t * 4 + h) * 6 + i];
                double& b = expected[(t * 4 + h) * 6 + i + 3];
                const double angle = rope.positions[t] * rope.frequencies.inverse[i];
                // A rotation keeps the length (except for the attention factor) and adds to the direction.
                const double length = std::hypot(a, b) * (0.1 * std::log(4.0) + 1),
                             direction = std::atan2(b, a) + angle;
                a = length * std::cos(direction);
                b = length * std::sin(direction);
            }
    // An angle near 1000 has three digits less.
    expect_close(rope.rotated(rope.packed), expected, 1000);
    expect_close(Rope<float>().rotated(random_values<float>(std::ssize(expected), 1)), expected, 4);
}

TEST(Rope, BackwardMatchesDifferences) {
    Rope<double> rope;
    const auto dout = random_values<double>(std::ssize(rope.packed), 2);
    expect_gradient("x", rope.packed, rope.rotated(dout, true),
                    [&] { return inner_product(rope.rotated(rope.packed), dout); });
}

TEST(Rope, SameBitsWithAnyThreads) {
    expect_same_with_any_threads([] {
        std::vector<int32_t> positions(6000);
        std::iota(positions.begin(), positions.end(), 0);
        Rope<float> rope(positions);
        return rope.rotated(rope.packed);
    });
}

TEST(Rope, RefusesBadShapes) {
    Rope<float> rope;
    const Tensor x = tensor_of(rope.packed, {6, 4, 6}), cos = tensor_of(rope.cos, {6, 3});
    expect_error(Exit::internal, "rope_apply: sin is [5, 3] f32 on cpu, expected [6, 3] f32",
                 [&] { rope_apply({}, {.x = x, .cos = cos, .sin = cos.slice(0, 0, 5)}); });
    expect_error(Exit::internal, "rope_apply: x is [6, 4, 5] f32",
                 [&] { rope_apply({}, {.x = x.slice(2, 0, 5), .cos = cos, .sin = cos}); });
    expect_error(Exit::internal, "rope_angles: cos is [6, 2] f32 on cpu, expected [6, 3] f32", [&] {
        rope_angles({}, {.cos = cos.slice(1, 0, 2),
                         .sin = cos,
                         .positions = view_of(rope.positions),
                         .frequencies = rope.frequencies});
    });
}

struct RopeOnDevice : DeviceCase {};

TEST_P(RopeOnDevice, EqualsDouble) {
    std::vector<int32_t> at(37);
    std::iota(at.begin(), at.end(), 0);
    at[7] = 131071, at[20] = 1000000, at[21] = 999983, at[36] = 200000;
    const int64_t tokens = std::ssize(at);
    struct Size {
        int64_t heads, all_heads, dim;
    };
    for (const auto [heads, all_heads, dim] :
         {Size{2, 4, 6}, {5, 7, 64}, {20, 24, 128}, {3, 3, 80}, {4, 5, 8}, {1, 2, 256}, {9, 11, 16}}) {
        release();
        const RopeFrequencies frequencies = rope_frequencies(dim, 5e5, {});
        const Twin positions = indices(at);
        const Twin cos = sum_output({tokens, dim / 2}), sin = sum_output({tokens, dim / 2});
        run([&](const Context& ctx, auto of) {
            rope_angles(ctx, {.cos = of(cos), .sin = of(sin), .positions = of(positions), .frequencies = frequencies});
        });
        // The angle is the same double: the error is one rounding and the last digits of two libraries.
        const Bound rounded{.relative = f32_rounding, .absolute = 0x1p-50};
        expect_close("cos", cos, rounded);
        expect_close("sin", sin, rounded);
        for (const bool backward : {false, true}) {
            const Twin x = values({tokens, all_heads, dim}, 1);
            run([&](const Context& ctx, auto of) {
                rope_apply(ctx, {.x = of(x.slice(1, 0, heads)), .cos = of(cos), .sin = of(sin), .backward = backward});
            });
            // Two products of numbers below 6, each with a rounded angle.
            expect_close("x", x, {.relative = rounding(), .absolute = 6 * 6 * f32_rounding});
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, RopeOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
