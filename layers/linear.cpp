#include "layers/linear.h"

#include "engine/device/gemm.h"
#include "layers/cuda_kernels.h"
#include "layers/partial_sums.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

void backward_on_gpu(const Context& ctx, const LinearBackward& args) {
    const int64_t tokens = args.dout.size(0), out_features = args.weight.size(0), in_features = args.weight.size(1);
    if (!args.din.empty())
        gemm(ctx, GpuGemm{.m = tokens,
                          .n = in_features,
                          .k = out_features,
                          .c = args.din,
                          .a = args.dout,
                          .b = args.weight,
                          .beta = args.din_mode == Grad::accumulate ? 1.0f : 0.0f});
    if (!args.dweight.empty())
        gemm(ctx, GpuGemm{.m = out_features,
                          .n = in_features,
                          .k = tokens,
                          .c = args.dweight,
                          .a = args.dout,
                          .b = args.in,
                          .transpose_a = true,
                          .beta = args.dweight_mode == Grad::accumulate ? 1.0f : 0.0f});
    if (!args.dbias.empty()) {
        check_partial_scratch("linear_backward", args.scratch, linear_scratch_bytes(out_features));
        const PhaseTimer timer(ctx, "bias");
        cuda::bias_gradient(ctx, args);
    }
}

}  // namespace

int64_t linear_scratch_bytes(int64_t out_features) {
    return bias_partials * out_features * static_cast<int64_t>(sizeof(float));
}

void linear_forward(const Context& ctx, const LinearForward& args) {
    const ShapeCheck check(ctx, "linear_forward", args.weight.dtype);
    const int64_t tokens = args.in.size(0), out_features = args.weight.size(0), in_features = args.weight.size(1);
    check("weight", args.weight, {out_features, in_features});
    check("in", args.in, {tokens, in_features});
    check("out", args.out, {tokens, out_features});
    const bool has_bias = !args.bias.empty();
    if (has_bias) check("bias", args.bias, {out_features});
    if (ctx.device == Device::cuda)
        return gemm(ctx, GpuGemm{.m = tokens,
                                 .n = out_features,
                                 .k = in_features,
                                 .c = args.out,
                                 .a = args.in,
                                 .b = args.weight,
                                 .transpose_b = true,
                                 .bias = args.bias});
    dispatch_float(args.weight.dtype, [&]<typename T>() {
        const Rows<T> out{args.out.as<T>(), args.out.stride[0]};
        // The bias goes in first and the product on top: no more traffic than the clearing it replaces.
        if (has_bias) {
            const PhaseTimer timer(ctx, "bias");
            const T* bias = args.bias.as<T>();
#pragma omp parallel for schedule(static) if (tokens * out_features >= parallel_from)
            for (int64_t t = 0; t < tokens; ++t) std::copy_n(bias, out_features, out[t]);
        }
        gemm(ctx, Gemm<T>{.m = tokens,
                          .n = out_features,
                          .k = in_features,
                          .c = out.data,
                          .ldc = out.stride,
                          .a = args.in.as<T>(),
                          .lda = args.in.stride[0],
                          .b = args.weight.as<T>(),
                          .ldb = args.weight.stride[0],
                          .transpose_b = true,
                          .beta = T(has_bias ? 1 : 0)});
    });
}

void linear_backward(const Context& ctx, const LinearBackward& args) {
    const ShapeCheck check(ctx, "linear_backward", args.weight.dtype);
    const int64_t tokens = args.dout.size(0), out_features = args.weight.size(0), in_features = args.weight.size(1);
    check("weight", args.weight, {out_features, in_features});
    check("dout", args.dout, {tokens, out_features});
    if (!args.din.empty()) check("din", args.din, {tokens, in_features});
    if (!args.dweight.empty()) {
        check("dweight", args.dweight, sum_dtype(args.weight.dtype), {out_features, in_features});
        check("in", args.in, {tokens, in_features});
    }
    if (!args.dbias.empty()) check("dbias", args.dbias, sum_dtype(args.weight.dtype), {out_features});
    require(tokens > 0 || args.dweight.empty() || args.dweight_mode == Grad::accumulate,
            "linear_backward: no token to overwrite the weight's gradient with");
    if (tokens == 0) return;
    if (ctx.device == Device::cuda) return backward_on_gpu(ctx, args);
    dispatch_float(args.weight.dtype, [&]<typename T>() {
        const Rows<const T> dout{args.dout.as<T>(), args.dout.stride[0]};
        if (!args.din.empty())
            gemm(ctx, Gemm<T>{.m = tokens,
                              .n = in_features,
                              .k = out_features,
                              .c = args.din.as<T>(),
                              .ldc = args.din.stride[0],
                              .a = dout.data,
                              .lda = dout.stride,
                              .b = args.weight.as<T>(),
                              .ldb = args.weight.stride[0],
                              .beta = T(args.din_mode == Grad::accumulate ? 1 : 0)});
        if (!args.dweight.empty())
            gemm(ctx, Gemm<T>{.m = out_features,
                              .n = in_features,
                              .k = tokens,
                              .c = args.dweight.as<T>(),
                              .ldc = args.dweight.stride[0],
                              .a = dout.data,
                              .lda = dout.stride,
                              .b = args.in.as<T>(),
                              .ldb = args.in.stride[0],
                              .transpose_a = true,
                              .beta = T(args.dweight_mode == Grad::accumulate ? 1 : 0)});
        if (!args.dbias.empty()) {
            const PhaseTimer timer(ctx, "bias");
            sum_over_rows(tokens, out_features, args.dbias.as<T>(), [&](int64_t t, double* sum) {
                const T* row = dout[t];
#pragma omp simd
                for (int64_t j = 0; j < out_features; ++j) sum[j] += row[j];
            });
        }
    });
}

}  // namespace colonnade
