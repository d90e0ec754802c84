#include "train/adamw.h"

#include <cmath>

namespace colonnade {
namespace {

template <typename T>
struct Coefficients {
    T beta1, beta2, epsilon, keep, step_size, v_scale, gradient_scale;
};

template <typename T>
void update(T* w, T* m, T* v, const T* g, int64_t n, const Coefficients<T>& c) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const T gradient = c.gradient_scale * g[i];
        m[i] = c.beta1 * m[i] + (1 - c.beta1) * gradient;
        v[i] = c.beta2 * v[i] + (1 - c.beta2) * gradient * gradient;
        w[i] = w[i] * c.keep - c.step_size * m[i] / (std::sqrt(v[i]) * c.v_scale + c.epsilon);
    }
}

}  // namespace

void adamw(const Context& ctx, const AdamWStep& a) {
    const PhaseTimer timer(ctx, "adamw");
    const AdamWSettings& s = a.settings;
    const double t = static_cast<double>(a.step);
    dispatch_float(a.weights.dtype, [&]<typename T>() {
        for (const Parameter& p : a.parameters.all()) {
            const double decay = p.decay ? s.weight_decay : 0;
            const Coefficients<T> c{.beta1 = static_cast<T>(s.beta1),
                                    .beta2 = static_cast<T>(s.beta2),
                                    .epsilon = static_cast<T>(s.epsilon),
                                    .keep = static_cast<T>(1 - a.learning_rate * decay),
                                    .step_size = static_cast<T>(a.learning_rate / (1 - std::pow(s.beta1, t))),
                                    .v_scale = static_cast<T>(1 / std::sqrt(1 - std::pow(s.beta2, t))),
                                    .gradient_scale = static_cast<T>(a.gradient_scale)};
            update(a.weights.as<T>() + p.begin, a.m.as<T>() + p.begin, a.v.as<T>() + p.begin,
                   a.gradients.as<T>() + p.begin, p.size(), c);
        }
    });
}

double gradient_norm(const Context& ctx, const Tensor& gradients) {
    const PhaseTimer timer(ctx, "gradient norm");
    constexpr int64_t block = 1 << 14;
    const int64_t n = gradients.numel(), blocks = (n + block - 1) / block;
    std::vector<double> partial(static_cast<size_t>(blocks));
    dispatch_float(gradients.dtype, [&]<typename T>() {
        const T* g = gradients.as<T>();
#pragma omp parallel for schedule(static)
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t end = std::min(n, (b + 1) * block);
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = b * block; i < end; ++i) sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
            partial[static_cast<size_t>(b)] = sum;
        }
    });
    double sum = 0;
    for (const double p : partial) sum += p;
    return std::sqrt(sum);
}

}  // namespace colonnade
