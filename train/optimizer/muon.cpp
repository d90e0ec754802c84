#include "train/optimizer/muon.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/device/device_memory.h"
#include "engine/device/gemm.h"
#include "layers/shape_check.h"
#include "train/optimizer/adamw.h"
#include "train/optimizer/muon_kernels.h"

namespace colonnade {
namespace {

constexpr double newton_a = 3.4445, newton_b = -4.7750, newton_c = 2.0315;
constexpr int newton_steps = 5;

void check_step(const Context& ctx, const MuonStep& a) {
    const bool gpu = ctx.device == Device::cuda;
    const DType dtype = gpu ? DType::f32 : a.weights.dtype;
    const ShapeCheck check(ctx, "muon", gpu ? DType::bf16 : dtype);
    const int64_t rows = a.weights.size(0), columns = a.weights.size(1), shorter = std::min(rows, columns);
    check("weights", a.weights, gpu ? DType::bf16 : dtype, {rows, columns});
    if (gpu) check("low", a.low, DType::i16, {rows, columns});
    check("m", a.m, dtype, {rows, columns});
    check("gradients", a.gradients, dtype, {rows, columns});
    check("clip", a.clip, DType::f64, {2});
    require(a.workspace.x.numel() >= rows * columns && a.workspace.gram.numel() >= shorter * shorter,
            "muon: [{}, {}] is larger than the workspace", rows, columns);
}

template <typename T>
void momentum_on_cpu(const MuonStep& a, const MuonCoefficients& c) {
    const T clip = static_cast<T>(a.clip.as<double>()[1]), keep = static_cast<T>(c.momentum),
            take = static_cast<T>(1 - c.momentum);
    T *const m = a.m.as<T>(), *const g = a.gradients.as<T>();
    const int64_t n = a.m.numel();
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const T gradient = clip * g[i];
        m[i] = keep * m[i] + take * gradient;
        g[i] = keep * m[i] + take * gradient;
    }
}

template <typename T>
void normalise_on_cpu(const Tensor& x, const Tensor& u, double sum) {
    const T scale = static_cast<T>(1 / std::max(std::sqrt(sum), muon_epsilon));
    const int64_t n = x.numel();
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) x.as<T>()[i] = scale * u.as<T>()[i];
}

template <typename T>
void apply_on_cpu(const MuonStep& a, const Tensor& x, const MuonCoefficients& c) {
    const T keep = static_cast<T>(c.keep), step = static_cast<T>(c.step_size);
    const int64_t n = x.numel();
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) a.weights.as<T>()[i] = keep * a.weights.as<T>()[i] - step * x.as<T>()[i];
}

/// Brings the singular values of x near 1. Returns the buffer that has the result.
Tensor orthogonalise(const Context& ctx, const MuonWorkspace& w, int64_t rows, int64_t columns) {
    const bool wide = rows <= columns;
    const int64_t shorter = std::min(rows, columns);
    Tensor x = w.x.slice(0, 0, rows * columns).view({rows, columns}),
           next = w.other.slice(0, 0, rows * columns).view({rows, columns});
    const Tensor gram = w.gram.slice(0, 0, shorter * shorter).view({shorter, shorter}),
                 polynomial = w.polynomial.slice(0, 0, shorter * shorter).view({shorter, shorter});
    for (int step = 0; step < newton_steps; ++step) {
        gemm(ctx, {.c = gram, .a = x, .b = x, .transpose_a = !wide, .transpose_b = wide});
        copy(ctx, polynomial, gram);
        gemm(ctx, {.c = polynomial, .a = gram, .b = gram, .alpha = newton_c, .beta = newton_b});
        copy(ctx, next, x);
        if (wide)
            gemm(ctx, {.c = next, .a = polynomial, .b = x, .beta = newton_a});
        else
            gemm(ctx, {.c = next, .a = x, .b = polynomial, .beta = newton_a});
        std::swap(x, next);
    }
    return x;
}

}  // namespace

MuonWorkspace MuonWorkspace::lay_out(Arena& arena, DType dtype, const Sizes& sizes) {
    const auto tensor = [&](int64_t elements) { return arena.tensor("muon", dtype, {elements}); };
    const int64_t square = sizes.shorter_side * sizes.shorter_side;
    return {.x = tensor(sizes.elements),
            .other = tensor(sizes.elements),
            .gram = tensor(square),
            .polynomial = tensor(square),
            .sum = arena.tensor("muon", DType::f64, {1}),
            .sums = arena.tensor("muon", DType::f64, {square_sum_count(sizes.elements)})};
}

void muon(const Context& ctx, const MuonStep& a) {
    check_step(ctx, a);
    const bool gpu = ctx.device == Device::cuda;
    if (!gpu && std::isnan(a.clip.as<double>()[1])) return;
    const int64_t rows = a.weights.size(0), columns = a.weights.size(1);
    const MuonCoefficients c{
        .momentum = a.settings.momentum,
        .keep = 1 - a.learning_rate * a.settings.weight_decay,
        .step_size = a.learning_rate * 0.2 * std::sqrt(static_cast<double>(std::max(rows, columns)))};
    const PhaseTimer timer(ctx, "muon");
    const auto elementwise = [&](auto&& on_gpu, auto&& on_cpu) {
        if (gpu) return on_gpu();
        dispatch_float(a.weights.dtype, on_cpu);
    };
    elementwise([&] { cuda::muon_momentum(ctx, a, c); }, [&]<typename T>() { momentum_on_cpu<T>(a, c); });
    const MuonWorkspace& w = a.workspace;
    const Tensor u = a.gradients.view({rows * columns}), x = w.x.slice(0, 0, rows * columns);
    clear(ctx, w.sum);
    const Tensor sums = w.sums.slice(0, 0, square_sum_count(u.numel()));
    sum_squares(ctx, {.sums = sums, .gradients = u});
    add_up(ctx, {.total = w.sum, .sums = sums});
    elementwise([&] { cuda::muon_normalise(ctx, x, u, w.sum); },
                [&]<typename T>() { normalise_on_cpu<T>(x, u, *w.sum.as<double>()); });
    const Tensor orthogonal = orthogonalise(ctx, w, rows, columns);
    elementwise([&] { cuda::muon_apply(ctx, a, orthogonal, c); },
                [&]<typename T>() { apply_on_cpu<T>(a, orthogonal, c); });
}

}  // namespace colonnade
