// AdamW against a plain implementation in double over several steps, within the rounding of the device's arithmetic;
// weight decay on matrices only; stochastic rounding of bf16 moments; 8-bit moments, with the same bits on both devices.

#include "train/optimizer/adamw.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "tests/support/optimizer_case.h"
#include "train/optimizer/adamw_kernels.h"
#include "train/optimizer/moment_codes.h"

namespace colonnade {
namespace {

/// About twenty thousand parameters; biases and norms of every size, with gaps between them.
ModelConfig config_with_biases() {
    ModelConfig c = family_defaults(Architecture::qwen3);
    c.vocab_size = 131;
    c.hidden_size = 36;
    c.intermediate_size = 75;
    c.num_hidden_layers = 2;
    c.num_attention_heads = 4;
    c.num_key_value_heads = 2;
    c.head_dim = 6;
    c.qkv_bias = c.o_bias = true;
    c.windows = {0, 0};
    return c;
}

class AdamW : public OnDevice {
  protected:
    void SetUp() override {
        OnDevice::SetUp();
        if (IsSkipped()) return;
        const Place& p = GetParam();
        const int64_t n = parameters_.size();
        ASSERT_NE(n % 2048, 0) << "the last thread block should be a partial one";
        weights_ = make_weights(n);
        m_ = make(p.moments, n);
        v_ = make(p.moments, n);
        if (p.moments == DType::u8) {
            m_units_ = make(DType::f32, n / moment_block);
            v_units_ = make(DType::f32, n / moment_block);
        }
        gradients_ = make(p.dtype, n);
        clip_ = put(std::vector<double>{1, 1});
        if (!gpu_) return;
        decay_map_ = put(decay_map(parameters_));
    }
    void step(const AdamWSettings& settings, double rate, int64_t t, uint64_t seed = 7) {
        adamw(ctx_, {.weights = weights_.values,
                     .low = weights_.low,
                     .m = m_,
                     .v = v_,
                     .m_units = m_units_,
                     .v_units = v_units_,
                     .gradients = gradients_,
                     .clip = clip_,
                     .decay_map = decay_map_,
                     .parameters = parameters_,
                     .settings = settings,
                     .learning_rate = rate,
                     .step = t,
                     .seed = seed});
    }
    /// value(i) for elements of parameters, 0 in the gaps.
    template <typename Value>
    std::vector<double> spread(Value&& value) const {
        std::vector<double> x(static_cast<size_t>(parameters_.size()));
        for (const Parameter& p : parameters_.all())
            for (size_t i = static_cast<size_t>(p.begin); i < static_cast<size_t>(p.begin + p.size()); ++i)
                x[i] = value(i);
        return x;
    }
    std::vector<std::vector<char>> state() {
        std::vector<std::vector<char>> all;
        for (const Tensor& t : {weights_.values, weights_.low, m_, v_, m_units_, v_units_})
            if (!t.empty()) all.push_back(bytes(t));
        return all;
    }
    void start() {
        write(weights_, spread([](size_t i) { return normal(0, i); }));
        for (const Tensor& moment : {m_, v_, m_units_, v_units_})
            if (!moment.empty()) fill(moment, std::vector<char>(moment.bytes()));
    }
    void run(int64_t first, int64_t last, uint64_t seed = 7) {
        for (int64_t t = first; t <= last; ++t) {
            write(gradients_, spread([&](size_t i) { return gradient_at(t, i); }));
            step({.weight_decay = 0.1}, 0.01, t, seed);
        }
    }

    const ParameterList parameters_{config_with_biases()};
    Weights weights_;
    Tensor m_, v_, m_units_, v_units_, gradients_, clip_, decay_map_;
};
class AdamWInFloats : public AdamW {};

/// AdamW in double, and a bound on the error of weights computed with unit roundoff u, whose moments are rounded once
/// more, by a relative error below q, each time they are stored. After t steps
///   m is a sum of terms rounded at most 5 t times (5 times when new, then 3 times a step), and t times by q
///   v has positive terms rounded 8 t times, and t times by q; its root has half the error, the denominator 4 more
/// so the error of the update, m over denominator, is at most
///     ((1 + u)^(9 t + 8) (1 + q)^t (1 - q)^(-t / 2) - 1) * rate * m~ / denominator
/// with m~ the m of |gradients|. The weight itself is rounded 3 times a step. If both are in double, both have the
/// error.
struct Reference {
    std::vector<double> w, m, v, m_abs, bound;
    double u, q;

    Reference(std::vector<double> weights, DType dtype, DType moments)
        : w(std::move(weights)),
          m(w.size()),
          v(m),
          m_abs(m),
          bound(m),
          u(dtype == DType::f64 ? 0x1p-52 : 0x1p-24),
          q(moments == DType::bf16 ? 0x1p-7 : 0) {}

    void step(const AdamWSettings& s, const ParameterList& parameters, const std::vector<double>& gradients,
              double clip, double rate, int64_t step) {
        const double t = static_cast<double>(step);
        const double grown = std::expm1((9 * t + 8) * u + t * std::log1p(q) - t / 2 * std::log1p(-q));
        for (const Parameter& p : parameters.all())
            for (size_t i = static_cast<size_t>(p.begin); i < static_cast<size_t>(p.begin + p.size()); ++i) {
                const double g = clip * gradients[i], correction = 1 - std::pow(s.beta1, t);
                m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
                m_abs[i] = s.beta1 * m_abs[i] + (1 - s.beta1) * std::abs(g);
                v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
                const double denominator = std::sqrt(v[i] / (1 - std::pow(s.beta2, t))) + s.epsilon;
                const bool matrix = p.shape.size() == 2;
                bound[i] += 1.01 * (3 * u * std::abs(w[i]) + grown * rate * m_abs[i] / correction / denominator);
                w[i] -= rate * (matrix ? s.weight_decay : 0) * w[i];
                w[i] -= rate * m[i] / correction / denominator;
            }
    }
};

TEST_P(AdamWInFloats, EqualsItsFormulas) {
    const AdamWSettings settings[] = {{},
                                      {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1},
                                      {.beta1 = 0, .beta2 = 0, .epsilon = 1e-3, .weight_decay = 1}};
    for (const AdamWSettings& s : settings)
        for (const double scale : {1.0, 0.03}) {
            start();
            Reference reference(read(weights_), GetParam().dtype, GetParam().moments);
            fill(clip_, std::vector<double>{1, scale});
            for (int64_t t = 1; t <= 10; ++t) {
                const double rate = 0.01 / static_cast<double>(t);
                write(gradients_, spread([&](size_t i) { return gradient_at(t, i); }));
                reference.step(s, parameters_, read(gradients_), scale, rate, t);
                step(s, rate, t);
            }
            const std::vector<double> w = read(weights_);
            double worst = 0;  // as a multiple of the bound
            for (size_t i = 0; i < w.size(); ++i) {
                const double error = std::abs(w[i] - reference.w[i]);
                worst = std::max(worst, reference.bound[i] > 0 ? error / reference.bound[i] : error * 1e300);
            }
            EXPECT_LE(worst, 1) << "beta2 " << s.beta2 << ", clip " << scale;
        }
}

TEST_P(AdamW, DecaysMatricesOnly) {
    write(weights_, spread([](size_t) { return 1; }));
    step({.weight_decay = 0.5}, 0.1, 1);
    std::vector<double> expected(static_cast<size_t>(parameters_.size()));
    int decayed = 0, kept = 0;
    for (const Parameter& p : parameters_.all()) {
        const bool bare =
            p.name.ends_with("norm.weight") || p.name.ends_with("layernorm.weight") || p.name.ends_with(".bias");
        (bare ? kept : decayed) += 1;
        const double value = GetParam().dtype == DType::f64 ? 1 - 0.1 * 0.5 : static_cast<float>(1 - 0.1 * 0.5);
        std::fill_n(expected.begin() + p.begin, p.size(), bare ? 1 : value);
    }
    EXPECT_TRUE(read(weights_) == expected);
    EXPECT_EQ(decayed, 2 + 2 * 7);     // embedding and head; q, k, v, o, gate, up, down
    EXPECT_EQ(kept, 1 + 2 * (4 + 4));  // norms: final, two and q/k per layer; biases of q, k, v, o
}

TEST_P(AdamW, ChangesNothingIfTheClipFactorIsNan) {
    start();
    run(1, 2);
    const auto before = state();
    write(gradients_, spread([](size_t) { return NAN; }));
    for (const double norm : {1.0, static_cast<double>(NAN), HUGE_VAL}) {
        fill(clip_, std::vector<double>{norm, NAN});
        step({.weight_decay = 0.1}, 0.01, 3);
        EXPECT_TRUE(state() == before);
    }
}

TEST_P(AdamW, GivesTheSameBitsInEveryRunAndAfterAStop) {
    start();
    run(1, 3);
    const auto first = state();
    start();
    run(1, 2);
    std::vector<std::vector<char>> saved;
    std::vector<Tensor> kept;
    for (const Tensor& t : {weights_.values, weights_.low, m_, v_, m_units_, v_units_})
        if (!t.empty()) kept.push_back(t);
    for (const Tensor& t : kept) saved.push_back(bytes(t));
    for (const Tensor& t : kept) fill(t, std::vector<char>(t.bytes(), 0x3f));
    for (size_t i = 0; i < kept.size(); ++i) fill(kept[i], saved[i]);
    run(3, 3);
    EXPECT_TRUE(state() == first);
    start();
    run(1, 3, 8);
    const bool rounded = GetParam().moments == DType::bf16 || GetParam().moments == DType::u8;
    EXPECT_EQ(state() == first, !rounded) << "another seed";
}

TEST_P(AdamW, GivesTheSameBitsInSlices) {
    start();
    run(1, 2);
    const auto whole = state();
    start();
    // Borders that are not those of parameters, words of the decay map or thread blocks; an empty slice does nothing.
    const int64_t n = parameters_.size();
    const std::vector<int64_t> borders = {0, 64, 64, 1984, 2112, 4096, n / 128 * 64, n};
    for (int64_t t = 1; t <= 2; ++t) {
        write(gradients_, spread([&](size_t i) { return gradient_at(t, i); }));
        for (size_t i = borders.size() - 1; i-- > 0;) {
            const auto slice = [&](const Tensor& x) { return x.empty() ? x : x.slice(0, borders[i], borders[i + 1]); };
            const auto units = [&](const Tensor& x) {
                return x.empty() ? x : x.slice(0, borders[i] / moment_block, borders[i + 1] / moment_block);
            };
            adamw(ctx_, {.weights = slice(weights_.values),
                         .low = slice(weights_.low),
                         .m = slice(m_),
                         .v = slice(v_),
                         .m_units = units(m_units_),
                         .v_units = units(v_units_),
                         .gradients = slice(gradients_),
                         .clip = clip_,
                         .decay_map = decay_map_,
                         .parameters = parameters_,
                         .begin = borders[i],
                         .settings = {.weight_decay = 0.1},
                         .learning_rate = 0.01,
                         .step = t,
                         .seed = 7});
        }
    }
    EXPECT_TRUE(state() == whole);
}

class AdamWWithBf16Moments : public AdamW {};

// The moments are g and g^2, rounded once, if both betas are 0.
TEST_P(AdamWWithBf16Moments, RoundsStochasticallyWithoutBias) {
    constexpr uint64_t seed = 0x123456789abcdef0, t = 5;
    start();
    write(gradients_, spread([](size_t i) { return gradient_at(1, i); }));
    step({.beta1 = 0, .beta2 = 0}, 0.01, t, seed);
    const auto g = get<float>(gradients_);
    const auto m = get<bf16>(m_), v = get<bf16>(v_);
    constexpr uint64_t stream = moment_rounding_stream + t;
    size_t different = 0;
    double error = 0, variance = 0;  // of m, in units of the last place of bf16
    for (size_t i = 0; i < g.size(); ++i) {
        const auto random = philox4x32(
            {static_cast<uint32_t>(i / 4), 0, static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
            {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
        const uint32_t m_bits = std::bit_cast<uint32_t>(g[i]), v_bits = std::bit_cast<uint32_t>(g[i] * g[i]);
        different += m[i].bits != (m_bits + (random[i % 4] & 0xffff)) >> 16;
        different += v[i].bits != (v_bits + (random[i % 4] >> 16)) >> 16;
        const double share = (m_bits & 0xffff) / 65536.0;
        error += m[i].bits - (m_bits >> 16) - share;
        variance += share * (1 - share);
    }
    EXPECT_EQ(different, 0u);
    EXPECT_LE(std::abs(error), 5 * std::sqrt(variance));
}

class AdamWWith8BitMoments : public AdamW {
  protected:
    /// Gradients of one size per parameter element, as in training.
    double gradient(int64_t t, size_t i) const {
        return std::pow(10.0, normal(1000, i) / 2 - 3) * (normal(static_cast<uint64_t>(t), i) + normal(2000, i));
    }
};

// After a step from nothing the moments are those of one gradient: every code is one of the two that surround them, and
// the weights are those of AdamW in float32, because an update takes the moments before they are rounded.
TEST_P(AdamWWith8BitMoments, AreTheCodesAroundTheMoments) {
    start();
    const std::vector<double> before = read(weights_);
    write(gradients_, spread([&](size_t i) { return gradient(1, i); }));
    step({}, 0.01, 1);
    const auto g = get<float>(gradients_), w = get<float>(weights_), m_units = get<float>(m_units_),
               v_units = get<float>(v_units_);
    const auto m = get<uint8_t>(m_), v = get<uint8_t>(v_);
    size_t outside = 0, wrong = 0;
    for (size_t i = 0; i < g.size(); ++i) {
        const double m_exact = 0.1 * g[i], v_exact = 1e-3 * g[i] * g[i];
        const double m_root = std::sqrt(std::abs(m_exact) / m_units[i / 64]),
                     v_root = std::sqrt(std::sqrt(v_exact / v_units[i / 64]));
        const int k = static_cast<int8_t>(m[i]);
        if (k != 0) outside += (k < 0) != (m_exact < 0);
        outside += std::abs(std::abs(k) - m_root) > 1.001;
        outside += std::abs(std::max(v_root, 1.0) - (v[i] + 1)) > 1.001;
        const double expected = before[i] - 0.01 * m_exact / 0.1 / (std::sqrt(v_exact / 1e-3) + 1e-8);
        wrong += g[i] != 0 && std::abs(w[i] - expected) > 1e-6;
    }
    EXPECT_EQ(outside, 0u);
    EXPECT_EQ(wrong, 0u);
}

TEST_P(AdamWWith8BitMoments, GiveTheSameBitsOnTheCpu) {
    start();
    const auto begin = get<float>(weights_);
    const auto n = static_cast<int64_t>(begin.size());
    std::vector<float> w = begin, m_units(begin.size() / 64), v_units(begin.size() / 64);
    std::vector<uint8_t> m(begin.size()), v(begin.size());
    std::vector<double> clip = {1, 0.7};
    fill(clip_, clip);
    const AdamWSettings settings{.weight_decay = 0.1};
    for (int64_t t = 1; t <= 20; ++t) {
        write(gradients_, spread([&](size_t i) { return gradient(t, i); }));
        step(settings, 0.01, t);
        std::vector<float> g = get<float>(gradients_);
        adamw(Context(), {.weights = Tensor(w.data(), DType::f32, {n}),
                          .m = Tensor(m.data(), DType::u8, {n}),
                          .v = Tensor(v.data(), DType::u8, {n}),
                          .m_units = Tensor(m_units.data(), DType::f32, {n / 64}),
                          .v_units = Tensor(v_units.data(), DType::f32, {n / 64}),
                          .gradients = Tensor(g.data(), DType::f32, {n}),
                          .clip = Tensor(clip.data(), DType::f64, {2}),
                          .parameters = parameters_,
                          .settings = settings,
                          .learning_rate = 0.01,
                          .step = t,
                          .seed = 7});
    }
    EXPECT_TRUE(get<float>(weights_) == w);
    EXPECT_TRUE(get<uint8_t>(m_) == m);
    EXPECT_TRUE(get<uint8_t>(v_) == v);
    EXPECT_TRUE(get<float>(m_units_) == m_units);
    EXPECT_TRUE(get<float>(v_units_) == v_units);
}

// Nearest rounding would never change v by (1 - beta2): over 300 steps with other sizes of gradients it has to follow.
TEST_P(AdamWWith8BitMoments, FollowGradientsThatChange) {
    start();
    std::vector<double> exact(static_cast<size_t>(parameters_.size()));
    for (int64_t t = 1; t <= 300; ++t) {
        write(gradients_, spread([&](size_t i) { return gradient(t, i) * (t < 150 || i % 2 ? 1 : 3); }));
        const std::vector<double> g = read(gradients_);
        for (size_t i = 0; i < g.size(); ++i) exact[i] = 0.99 * exact[i] + 0.01 * g[i] * g[i];
        step({.beta2 = 0.99}, 1e-4, t);
    }
    const auto v = get<uint8_t>(v_);
    const auto units = get<float>(v_units_);
    double of_odd = 0, of_even = 0, odd = 0, even = 0;
    for (const Parameter& p : parameters_.all())
        for (auto i = static_cast<size_t>(p.begin); i < static_cast<size_t>(p.end()); ++i) {
            const double ratio = v_of(v[i], units[i / 64]) / exact[i];
            (i % 2 ? of_odd : of_even) += ratio;
            (i % 2 ? odd : even) += 1;
        }
    EXPECT_NEAR(of_odd / odd, 1, 0.03);
    EXPECT_NEAR(of_even / even, 1, 0.03);
}

INSTANTIATE_TEST_SUITE_P(
    Devices, AdamW,
    testing::Values(Place{Device::cpu, DType::f32, DType::f32}, Place{Device::cpu, DType::f64, DType::f64},
                    Place{Device::cpu, DType::f32, DType::u8}, Place{Device::cuda, DType::f32, DType::f32},
                    Place{Device::cuda, DType::f32, DType::bf16}, Place{Device::cuda, DType::f32, DType::u8}),
    name_of_place);

INSTANTIATE_TEST_SUITE_P(Devices, AdamWInFloats,
                         testing::Values(Place{Device::cpu, DType::f32, DType::f32},
                                         Place{Device::cpu, DType::f64, DType::f64},
                                         Place{Device::cuda, DType::f32, DType::f32},
                                         Place{Device::cuda, DType::f32, DType::bf16}),
                         name_of_place);

INSTANTIATE_TEST_SUITE_P(Devices, AdamWWith8BitMoments,
                         testing::Values(Place{Device::cpu, DType::f32, DType::u8},
                                         Place{Device::cuda, DType::f32, DType::u8}),
                         name_of_place);

INSTANTIATE_TEST_SUITE_P(Devices, AdamWWithBf16Moments, testing::Values(Place{Device::cuda, DType::f32, DType::bf16}),
                         name_of_place);

TEST(AdamWOnTheCpu, LeavesGaps) {
    const ParameterList parameters(config_with_biases());
    const auto n = static_cast<size_t>(parameters.size());
    std::vector<float> w(n, 1), m(n), v(n), g(n, 1);
    std::vector<double> clip = {1, 1};
    const auto view = [](auto& x) {
        return Tensor(x.data(), dtype_of<typename std::decay_t<decltype(x)>::value_type>(), {std::ssize(x)});
    };
    const AdamWSettings settings;
    adamw(Context(), {.weights = view(w),
                      .m = view(m),
                      .v = view(v),
                      .gradients = view(g),
                      .clip = view(clip),
                      .parameters = parameters,
                      .settings = settings,
                      .learning_rate = 0.1,
                      .step = 1});
    EXPECT_EQ(std::count(w.begin(), w.end(), 1.0f), parameters.size() - parameters.count());
}

TEST(DecayMap, CoversEveryElement) {
    for (const bool biases : {false, true}) {
        ModelConfig config = config_with_biases();
        config.qkv_bias = config.o_bias = config.mlp_bias = biases;
        const ParameterList parameters(config);
        const std::vector<int32_t> map = decay_map(parameters);
        ASSERT_EQ(std::ssize(map), decay_map_words(parameters.size()));
        for (const Parameter& p : parameters.all())
            for (int64_t i = p.begin; i < p.begin + p.size(); ++i) {
                const auto word = static_cast<uint32_t>(map[static_cast<size_t>(i / 2048)]);
                ASSERT_EQ((word >> (i % 2048 / 64) & 1) != 0, p.decay) << p.name;
            }
    }
    EXPECT_EQ(decay_map_words(0), 0);
    EXPECT_EQ(decay_map_words(2048), 1);
    EXPECT_EQ(decay_map_words(2049), 2);
}

}  // namespace
}  // namespace colonnade
