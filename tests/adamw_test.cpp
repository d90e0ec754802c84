// links: train
// AdamW against its formulas written plainly in double, over many steps; decay on matrices only; the norm and the clip.

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "file_test.h"
#include "tiny_model.h"

namespace colonnade {
namespace {

/// Flat buffers for a model, in their own memory.
template <typename T>
struct Buffers {
    ParameterList parameters;
    std::vector<T> w, m, v, g;
    explicit Buffers(const ModelConfig& config)
        : parameters(config), w(static_cast<size_t>(parameters.size())), m(w), v(w), g(w) {}
    static Tensor view(std::vector<T>& x) { return {x.data(), dtype_of<T>(), {std::ssize(x)}}; }
    void step(const AdamWSettings& settings, double rate, double scale, int64_t t) {
        adamw(Context(), {.weights = view(w),
                          .m = view(m),
                          .v = view(v),
                          .gradients = view(g),
                          .parameters = parameters,
                          .settings = settings,
                          .learning_rate = rate,
                          .gradient_scale = scale,
                          .step = t});
    }
};

ModelConfig config_with_biases() {
    ModelConfig c = tiny_config(Architecture::qwen3, false);
    c.qkv_bias = c.o_bias = true;
    return c;
}

double gradient_at(int64_t t, size_t i) {
    return std::pow(10.0, static_cast<double>(i % 7) - 5) * Philox{static_cast<uint64_t>(t), 0}.normal(i);
}

template <typename T>
double largest_error(const AdamWSettings& s, double scale) {
    Buffers<T> b(config_with_biases());
    std::vector<double> w(b.w.size()), m(w), v(w);
    for (const Parameter& p : b.parameters.all())
        for (size_t i = static_cast<size_t>(p.begin); i < static_cast<size_t>(p.begin + p.size()); ++i)
            w[i] = b.w[i] = static_cast<T>(Philox{99, 0}.normal(i));
    double worst = 0;
    for (int64_t t = 1; t <= 25; ++t) {
        const double rate = 0.01 / static_cast<double>(t);
        for (const Parameter& p : b.parameters.all())
            for (size_t i = static_cast<size_t>(p.begin); i < static_cast<size_t>(p.begin + p.size()); ++i) {
                b.g[i] = static_cast<T>(gradient_at(t, i));
                const double g = scale * static_cast<double>(b.g[i]);
                m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
                v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
                const double m_hat = m[i] / (1 - std::pow(s.beta1, t)), v_hat = v[i] / (1 - std::pow(s.beta2, t));
                const bool matrix = p.shape.size() == 2;
                w[i] -= rate * (matrix ? s.weight_decay : 0) * w[i];
                w[i] -= rate * m_hat / (std::sqrt(v_hat) + s.epsilon);
            }
        b.step(s, rate, scale, t);
        for (size_t i = 0; i < w.size(); ++i)
            worst = std::max(worst, std::abs(static_cast<double>(b.w[i]) - w[i]) / (1 + std::abs(w[i])));
    }
    return worst;
}

TEST(AdamW, EqualsItsFormulas) {
    const AdamWSettings settings[] = {{},
                                      {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1},
                                      {.beta1 = 0, .beta2 = 0, .epsilon = 1e-3, .weight_decay = 1}};
    for (const AdamWSettings& s : settings)
        for (const double scale : {1.0, 0.03}) {
            EXPECT_LE(largest_error<double>(s, scale), 1e-14);
            EXPECT_LE(largest_error<float>(s, scale), 2e-6);  // 25 steps, each rounding w once or twice
        }
}

TEST(AdamW, DecaysMatricesOnlyAndLeavesGaps) {
    Buffers<float> b(config_with_biases());
    for (float& w : b.w) w = 1;  // the gaps too: nothing may touch them
    b.step({.weight_decay = 0.5}, 0.1, 1, 1);
    std::vector<float> expected(b.w.size(), 1.0f);
    int decayed = 0, kept = 0;
    for (const Parameter& p : b.parameters.all()) {
        const bool bare =
            p.name.ends_with("norm.weight") || p.name.ends_with("layernorm.weight") || p.name.ends_with(".bias");
        (bare ? kept : decayed) += 1;
        if (!bare) std::fill_n(expected.begin() + p.begin, p.size(), 0.95f);
    }
    EXPECT_EQ(b.w, expected);
    EXPECT_EQ(decayed, 2 + 2 * 7);     // embedding and head; q, k, v, o, gate, up, down
    EXPECT_EQ(kept, 1 + 2 * (4 + 4));  // norms: final, two and q/k per layer; biases of q, k, v, o
}

TEST(GradientNorm, IsThatOfTheWholeBufferOnAnyNumberOfThreads) {
    std::vector<float> g(100'003);
    double sum = 0;
    for (size_t i = 0; i < g.size(); ++i) {
        g[i] = static_cast<float>(gradient_at(1, i));
        sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
    }
    const Tensor view = Buffers<float>::view(g);
    omp_set_num_threads(1);
    const double norm = gradient_norm(Context(), view);
    EXPECT_NEAR(norm, std::sqrt(sum), 1e-12 * norm);
    for (const int threads : {2, 3, 7}) {
        omp_set_num_threads(threads);
        EXPECT_EQ(gradient_norm(Context(), view), norm) << threads << " threads";
    }
    EXPECT_EQ(gradient_norm(Context(), Tensor(g.data(), DType::f32, {0})), 0);
}

class Update : public testing::Test {
  protected:
    std::unique_ptr<Learner> learner_ = tiny_learner(tiny_config(Architecture::llama), DType::f32, 1, 8);
    void set_gradients(float value) const {
        learner_->zero_gradients();
        for (const Parameter& p : learner_->parameters().all())
            std::fill_n(learner_->gradients().as<float>() + p.begin, p.size(), value);
    }
};

TEST_F(Update, ClipsToTheNorm) {
    const double full = 0.5 * std::sqrt(static_cast<double>(learner_->parameters().count()));
    for (const double limit : {0.0, 0.1, 1e9}) {
        set_gradients(0.5f);
        const auto before = values_of<float>(learner_->m());
        const Learner::Update update = learner_->update(Context(), {.beta1 = 0.5}, 1e-3, limit);
        EXPECT_NEAR(update.gradient_norm, full, 1e-9 * full);
        const double factor = limit == 0.1 ? limit / (full + 1e-6) : 1;
        EXPECT_DOUBLE_EQ(update.clip_factor, factor);
        // The first moment shows what gradient the optimizer saw.
        const auto at = static_cast<size_t>(learner_->parameters().all()[0].begin);
        EXPECT_NEAR(values_of<float>(learner_->m())[at], 0.5 * before[at] + 0.5 * 0.5 * factor, 1e-7);
    }
}

TEST_F(Update, RefusesGradientsThatAreNoNumbers) {
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
        set_gradients(0.5f);
        const Parameter& p = learner_->parameters().find("model.layers.0.self_attn.k_proj.weight");
        learner_->gradients().as<float>()[p.begin + 3] = bad;
        const auto w = values_of<float>(learner_->weights()), m = values_of<float>(learner_->m());
        expect_error(Exit::numerics, "first in model.layers.0.self_attn.k_proj.weight",
                     [&] { learner_->update(Context(), {}, 1e-3, 1); });
        EXPECT_TRUE(values_of<float>(learner_->weights()) == w && values_of<float>(learner_->m()) == m);
        EXPECT_EQ(learner_->updates(), 0);
    }
    set_gradients(1e30f);  // finite, and its square in double too
    EXPECT_TRUE(std::isfinite(learner_->update(Context(), {}, 1e-3, 1).gradient_norm));
}

}  // namespace
}  // namespace colonnade
