#include "layers/rmsnorm.h"

#include <algorithm>
#include <cmath>

#include "engine/device/wide_vectors.h"
#include "layers/cuda_kernels.h"
#include "layers/partial_sums.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

/// [tokens, heads, width]; a [tokens, width] tensor has one head.
struct Shape {
    int64_t tokens, heads, width;
};

template <typename T>
struct Heads {
    T* data;
    int64_t token_stride, head_stride;
    T* row(int64_t token, int64_t head) const {
        return data ? data + token * token_stride + head * head_stride : nullptr;
    }
};

template <typename T>
Heads<T> heads_of(const Tensor& t) {
    if (t.empty()) return {nullptr, 0, 0};
    return {t.as<std::remove_const_t<T>>(), t.stride[0], t.rank == 3 ? t.stride[1] : 0};
}

Shape shape_of(const char* op, const Tensor& in) {
    require(in.rank == 2 || in.rank == 3, "{}: in is {}, expected two or three dimensions", op, in);
    return {in.size(0), in.rank == 3 ? in.size(1) : 1, in.size(in.rank - 1)};
}

template <typename T>
COLONNADE_WIDE_VECTORS void forward_row(T* out, T* rstd, T* sum, const T* in, const T* delta, const T* weight,
                                        int64_t width, double eps) {
    if (delta) {
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) sum[j] = in[j] + delta[j];
        in = sum;
    }
    double square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t j = 0; j < width; ++j) square += static_cast<double>(in[j]) * in[j];
    const T r = static_cast<T>(1 / std::sqrt(square / static_cast<double>(width) + eps));
    *rstd = r;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) out[j] = weight[j] * (in[j] * r);
}

template <typename T>
struct BackwardRow {
    T* din;
    const T *dout, *in;
    T rstd;
};

template <typename T>
COLONNADE_WIDE_VECTORS void backward_row(const BackwardRow<T>& row, Grad mode, double* dweight, const T* weight,
                                         int64_t width) {
    T* const din = row.din;
    const T *const dout = row.dout, *const in = row.in;
    const T r = row.rstd;
    // Before din is written, which may alias dout.
    if (dweight) {
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) dweight[j] += dout[j] * (in[j] * r);
    }
    if (!din) return;
    double dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < width; ++j) dot += static_cast<double>(weight[j] * dout[j]) * in[j];
    const T shrink = static_cast<T>(dot / static_cast<double>(width) * r * r);
    if (mode == Grad::accumulate) {
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) din[j] += r * (weight[j] * dout[j] - in[j] * shrink);
    } else {
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) din[j] = r * (weight[j] * dout[j] - in[j] * shrink);
    }
}

template <typename T>
void forward(const RmsNormForward& args, const Shape& shape) {
    const auto out = heads_of<T>(args.out), sum = heads_of<T>(args.sum);
    const auto in = heads_of<const T>(args.in), delta = heads_of<const T>(args.delta);
    T* const rstd = args.rstd.as<T>();
    const T* const weight = args.weight.as<T>();
#pragma omp parallel for schedule(static) if (shape.tokens * shape.heads * shape.width >= parallel_from)
    for (int64_t t = 0; t < shape.tokens; ++t)
        for (int64_t h = 0; h < shape.heads; ++h)
            forward_row(out.row(t, h), rstd + t * shape.heads + h, sum.row(t, h), in.row(t, h), delta.row(t, h), weight,
                        shape.width, args.eps);
}

template <typename T>
void backward(const RmsNormBackward& args, const Shape& shape) {
    const auto din = heads_of<T>(args.din);
    const auto dout = heads_of<const T>(args.dout), in = heads_of<const T>(args.in);
    const T* const rstd = args.rstd.as<T>();
    const T* const weight = args.weight.as<T>();
    T* const dweight = args.dweight.empty() ? nullptr : args.dweight.as<T>();
    sum_over_rows(shape.tokens, dweight ? shape.width : 0, dweight, [&](int64_t t, double* partial) {
        for (int64_t h = 0; h < shape.heads; ++h)
            backward_row<T>({din.row(t, h), dout.row(t, h), in.row(t, h), rstd[t * shape.heads + h]}, args.din_mode,
                            dweight ? partial : nullptr, weight, shape.width);
    });
}

/// rstd must have one value per row, contiguous, of any rank: [tokens], [tokens * heads] or [tokens, heads].
void check_rstd(const char* op, const Tensor& rstd, const Tensor& in, const Shape& shape) {
    const bool held = rstd.dtype == sum_dtype(in.dtype) && rstd.device == in.device && rstd.contiguous() &&
                      rstd.numel() == shape.tokens * shape.heads && (rstd.data || rstd.numel() == 0);
    require(held, "{}: rstd is {}, expected one value for each row of in {}", op, rstd, in);
}

}  // namespace

int64_t rmsnorm_scratch_bytes(int64_t width) {
    const int64_t narrow = std::min<int64_t>(width, 256);
    return std::max(norm_partials(width) * width, norm_partials(narrow) * narrow) * static_cast<int64_t>(sizeof(float));
}

void rmsnorm_forward(const Context& ctx, const RmsNormForward& args) {
    const ShapeCheck check(ctx, "rmsnorm_forward", args.in.dtype);
    const Shape shape = shape_of(check.op(), args.in);
    check.same("in", args.in, args.in);
    check.same("out", args.out, args.in);
    if (!args.delta.empty()) {
        check.same("delta", args.delta, args.in);
        check.same("sum", args.sum, args.in);
    }
    check("weight", args.weight, {shape.width});
    check_rstd(check.op(), args.rstd, args.in, shape);
    const PhaseTimer timer(ctx, "rmsnorm");
    if (ctx.device == Device::cuda) return cuda::rmsnorm_forward(ctx, args);
    dispatch_float(args.in.dtype, [&]<typename T>() { forward<T>(args, shape); });
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& args) {
    const ShapeCheck check(ctx, "rmsnorm_backward", args.in.dtype);
    const Shape shape = shape_of(check.op(), args.in);
    check.same("in", args.in, args.in);
    check.same("dout", args.dout, args.in);
    if (!args.din.empty()) check.same("din", args.din, args.in);
    if (!args.dweight.empty()) check("dweight", args.dweight, sum_dtype(args.in.dtype), {shape.width});
    check("weight", args.weight, {shape.width});
    check_rstd(check.op(), args.rstd, args.in, shape);
    const PhaseTimer timer(ctx, "rmsnorm");
    if (ctx.device == Device::cuda) {
        if (!args.dweight.empty()) check_partial_scratch(check.op(), args.scratch, rmsnorm_scratch_bytes(shape.width));
        return cuda::rmsnorm_backward(ctx, args);
    }
    dispatch_float(args.in.dtype, [&]<typename T>() { backward<T>(args, shape); });
}

}  // namespace colonnade
