#include "layers/score_head.h"

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {

void score_forward(const Context& ctx, const ScoreForward& a) {
    const ShapeCheck check(ctx, "score_forward", a.weight.dtype);
    const int64_t answers = a.hidden.size(0), width = a.weight.size(1);
    check("scores", a.scores, DType::f64, {answers});
    check("hidden", a.hidden, {answers, width});
    check("weight", a.weight, {1, width});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::score_forward(ctx, a);
    dispatch_float(a.weight.dtype, [&]<typename T>() {
        const Rows<const T> hidden{a.hidden.as<T>(), a.hidden.stride[0]};
        const T* w = a.weight.as<T>();
        for (int64_t b = 0; b < answers; ++b) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < width; ++j) sum += static_cast<double>(hidden[b][j]) * static_cast<double>(w[j]);
            a.scores.as<double>()[b] = sum;
        }
    });
}

void score_backward(const Context& ctx, const ScoreBackward& a) {
    const ShapeCheck check(ctx, "score_backward", a.weight.dtype);
    const int64_t answers = a.hidden.size(0), width = a.weight.size(1);
    check("dhidden", a.dhidden, {answers, width});
    if (!a.dweight.empty()) check("dweight", a.dweight, sum_dtype(a.weight.dtype), {1, width});
    check("dscores", a.dscores, DType::f64, {answers});
    check("hidden", a.hidden, {answers, width});
    check("weight", a.weight, {1, width});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::score_backward(ctx, a);
    dispatch_float(a.weight.dtype, [&]<typename T>() {
        const Rows<const T> hidden{a.hidden.as<T>(), a.hidden.stride[0]};
        const Rows<T> dhidden{a.dhidden.as<T>(), a.dhidden.stride[0]};
        const T* w = a.weight.as<T>();
        const double* d = a.dscores.as<double>();
        for (int64_t b = 0; b < answers; ++b)
            for (int64_t j = 0; j < width; ++j) dhidden[b][j] = static_cast<T>(d[b] * static_cast<double>(w[j]));
        if (a.dweight.empty()) return;
        std::vector<double> sums(static_cast<size_t>(width));
        for (int64_t b = 0; b < answers; ++b)
            for (int64_t j = 0; j < width; ++j)
                sums[static_cast<size_t>(j)] += d[b] * static_cast<double>(hidden[b][j]);
        for (int64_t j = 0; j < width; ++j) a.dweight.as<T>()[j] += static_cast<T>(sums[static_cast<size_t>(j)]);
    });
}

}  // namespace colonnade
