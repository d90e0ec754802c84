#include "layers/linear.h"

#include "engine/device/device_memory.h"
#include "engine/device/gemm.h"
#include "engine/device/planted_bug.h"
#include "layers/cuda_kernels.h"
#include "layers/partial_sums.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

void bias_gradient(const Context& ctx, const LinearBackward& args) {
    const int64_t out_features = args.dbias.numel();
    if (ctx.device == Device::cuda) {
        check_partial_scratch("linear_backward", args.scratch, linear_scratch_bytes(out_features));
        const PhaseTimer timer(ctx, "bias");
        return cuda::bias_gradient(ctx, args);
    }
    const PhaseTimer timer(ctx, "bias");
    dispatch_float(args.weight.dtype, [&]<typename T>() {
        const Rows<const T> dout{args.dout.as<T>(), args.dout.stride[0]};
        sum_over_rows(args.dout.size(0), out_features, args.dbias.as<T>(), [&](int64_t t, double* sum) {
            const T* row = dout[t];
#pragma omp simd
            for (int64_t j = 0; j < out_features; ++j) sum[j] += row[j];
        });
    });
}

void input_gradient(const Context& ctx, const LinearBackward& args) {
    if (!args.fp8) return gemm(ctx, {.c = args.din, .a = args.dout, .b = args.weight, .beta = beta_of(args.din_mode)});
    require(args.din_mode == Grad::overwrite, "linear_backward: a product in e4m3 adds to nothing");
    fp8_product(ctx, {.out = args.din, .in = args.dout, .weight = args.weight, .transposed = true, .fp8 = args.fp8});
}

}  // namespace

int64_t linear_scratch_bytes(int64_t out_features) {
    return bias_partials * out_features * static_cast<int64_t>(sizeof(float));
}

void linear_forward(const Context& ctx, const LinearForward& args) {
    const ShapeCheck check(ctx, "linear_forward", args.weight.dtype);
    const int64_t tokens = args.in.size(0), out_features = args.weight.size(0), in_features = args.weight.size(1);
    if (args.fp8.matrices.empty()) check("weight", args.weight, {out_features, in_features});
    check("in", args.in, {tokens, in_features});
    check("out", args.out, {tokens, out_features});
    if (!args.bias.empty()) check("bias", args.bias, {out_features});
    if (args.fp8)
        fp8_product(ctx, {.out = args.out, .in = args.in, .weight = args.weight, .bias = args.bias, .fp8 = args.fp8});
    else
        gemm(ctx, {.c = args.out, .a = args.in, .b = args.weight, .transpose_b = true, .bias = args.bias});
}

void linear_backward(const Context& ctx, const LinearBackward& args) {
    const ShapeCheck check(ctx, "linear_backward", args.weight.dtype);
    const int64_t tokens = args.dout.size(0), out_features = args.weight.size(0), in_features = args.weight.size(1);
    if (args.fp8.matrices.empty()) check("weight", args.weight, {out_features, in_features});
    check("dout", args.dout, {tokens, out_features});
    if (!args.din.empty()) check("din", args.din, {tokens, in_features});
    if (!args.dweight.empty()) {
        check("dweight", args.dweight, sum_dtype(args.weight.dtype), {out_features, in_features});
        check("in", args.in, {tokens, in_features});
    }
    if (!args.dbias.empty()) check("dbias", args.dbias, sum_dtype(args.weight.dtype), {out_features});
    if (tokens == 0) {  // cuBLASLt has no product over nothing
        if (!args.dweight.empty() && args.dweight_mode == Grad::overwrite) clear(ctx, args.dweight);
        return;
    }
    if (!args.din.empty()) input_gradient(ctx, args);
    constexpr double scale = planted_bug == PlantedBug::gradient ? 1.01 : 1;
    if (!args.dweight.empty())
        gemm(ctx, {.c = args.dweight,
                   .a = args.dout,
                   .b = args.in,
                   .transpose_a = true,
                   .alpha = scale,
                   .beta = beta_of(args.dweight_mode)});
    if (!args.dbias.empty()) bias_gradient(ctx, args);
}

}  // namespace colonnade
