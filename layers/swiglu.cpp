#include "layers/swiglu.h"

#include "engine/device/vector_math.h"
#include "engine/device/wide_vectors.h"
#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

template <typename T>
COLONNADE_WIDE_VECTORS void forward_row(T* out, const T* gate, const T* up, int64_t ffn) {
#pragma omp simd
    for (int64_t j = 0; j < ffn; ++j) out[j] = gate[j] / (1 + vexp(-gate[j])) * up[j];
}

template <typename T>
COLONNADE_WIDE_VECTORS void backward_row(T* dgate, T* dup, const T* dout, const T* gate, const T* up, int64_t ffn) {
#pragma omp simd
    for (int64_t j = 0; j < ffn; ++j) {
        const T g = gate[j], u = up[j], d = dout[j];
        const T s = 1 / (1 + vexp(-g));
        dgate[j] = d * u * s * (1 + g * (1 - s));
        dup[j] = d * g * s;
    }
}

}  // namespace

void swiglu_forward(const Context& ctx, const SwigluForward& args) {
    const ShapeCheck check(ctx, "swiglu_forward", args.out.dtype);
    const int64_t tokens = args.out.size(0), ffn = args.out.size(1);
    check("out", args.out, {tokens, ffn});
    check("gate_up", args.gate_up, {tokens, 2 * ffn});
    const PhaseTimer timer(ctx, "swiglu");
    if (ctx.device == Device::cuda) return cuda::swiglu_forward(ctx, args);
    dispatch_float(args.out.dtype, [&]<typename T>() {
        const Rows<T> out{args.out.as<T>(), args.out.stride[0]};
        const Rows<const T> gate_up{args.gate_up.as<T>(), args.gate_up.stride[0]};
#pragma omp parallel for schedule(static) if (tokens * ffn >= parallel_from)
        for (int64_t t = 0; t < tokens; ++t) forward_row(out[t], gate_up[t], gate_up[t] + ffn, ffn);
    });
}

void swiglu_backward(const Context& ctx, const SwigluBackward& args) {
    const ShapeCheck check(ctx, "swiglu_backward", args.dout.dtype);
    const int64_t tokens = args.dout.size(0), ffn = args.dout.size(1);
    check("dout", args.dout, {tokens, ffn});
    check("gate_up", args.gate_up, {tokens, 2 * ffn});
    check("dgate_up", args.dgate_up, {tokens, 2 * ffn});
    const PhaseTimer timer(ctx, "swiglu");
    if (ctx.device == Device::cuda) return cuda::swiglu_backward(ctx, args);
    dispatch_float(args.dout.dtype, [&]<typename T>() {
        const Rows<T> dgate_up{args.dgate_up.as<T>(), args.dgate_up.stride[0]};
        const Rows<const T> dout{args.dout.as<T>(), args.dout.stride[0]};
        const Rows<const T> gate_up{args.gate_up.as<T>(), args.gate_up.stride[0]};
#pragma omp parallel for schedule(static)
        for (int64_t t = 0; t < tokens; ++t)
            backward_row(dgate_up[t], dgate_up[t] + ffn, dout[t], gate_up[t], gate_up[t] + ffn, ffn);
    });
}

}  // namespace colonnade
