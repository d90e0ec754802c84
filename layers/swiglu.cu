// A CTA handles two rows of 2048 columns. gate_up is far larger than the caches, and no kernel reads it again soon.

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"
#include "layers/swiglu.cuh"

namespace colonnade::cuda {
namespace {

constexpr int rows_of_cta = 2, most_threads = 256;

struct Swiglu {
    __nv_bfloat16 *out, *dgate_up;
    const __nv_bfloat16 *gate_up, *dout;
    int64_t out_stride, dgate_up_stride, gate_up_stride, dout_stride;
    int rows, ffn;
};

__device__ int column_of_thread() {
    return static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * pack_size;
}

template <bool aligned>
__global__ void __launch_bounds__(most_threads) forward_kernel(Swiglu a) {
    const int column = column_of_thread(), left = a.ffn - column;
    const int first = static_cast<int>(blockIdx.x) * rows_of_cta;
    if (left <= 0) return;
    Pack gate[rows_of_cta], up[rows_of_cta];
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k) {
        if (first + k >= a.rows) continue;
        const __nv_bfloat16* const from = a.gate_up + (first + k) * a.gate_up_stride + column;
        gate[k] = load_pack_once<aligned>(from, left);
        up[k] = load_pack_once<aligned>(from + a.ffn, left);
    }
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k) {
        if (first + k >= a.rows) continue;
        float out[pack_size];
#pragma unroll
        for (int e = 0; e < pack_size; ++e) out[e] = swiglu(gate[k][e], up[k][e]);
        store_pack<aligned>(a.out + (first + k) * a.out_stride + column, pack_of(out), left);
    }
}

/// dgate_up may alias gate_up: every thread reads its elements before it writes them.
template <bool aligned>
__global__ void __launch_bounds__(most_threads) backward_kernel(Swiglu a) {
    const int column = column_of_thread(), left = a.ffn - column;
    const int first = static_cast<int>(blockIdx.x) * rows_of_cta;
    if (left <= 0) return;
    Pack gate[rows_of_cta], up[rows_of_cta], dout[rows_of_cta];
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k) {
        if (first + k >= a.rows) continue;
        const __nv_bfloat16* const from = a.gate_up + (first + k) * a.gate_up_stride + column;
        gate[k] = load_pack_once<aligned>(from, left);
        up[k] = load_pack_once<aligned>(from + a.ffn, left);
        dout[k] = load_pack_once<aligned>(a.dout + (first + k) * a.dout_stride + column, left);
    }
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k) {
        if (first + k >= a.rows) continue;
        float dgate[pack_size], dup[pack_size];
#pragma unroll
        for (int e = 0; e < pack_size; ++e) {
            const SwigluGradient d = swiglu_gradient(gate[k][e], up[k][e], dout[k][e]);
            dgate[e] = d.gate, dup[e] = d.up;
        }
        __nv_bfloat16* const to = a.dgate_up + (first + k) * a.dgate_up_stride + column;
        store_pack_once<aligned>(to, pack_of(dgate), left);
        store_pack_once<aligned>(to + a.ffn, pack_of(dup), left);
    }
}

using Kernel = void (*)(Swiglu);

void launch(const Context& ctx, const char* name, Kernel kernel, const Swiglu& a) {
    if (a.rows == 0 || a.ffn == 0) return;
    const int packs = (a.ffn + pack_size - 1) / pack_size;
    const int threads = std::min(most_threads, (packs + 31) / 32 * 32);
    const dim3 grid((a.rows + rows_of_cta - 1) / rows_of_cta, (packs + threads - 1) / threads);
    kernel<<<grid, threads, 0, stream_of(ctx)>>>(a);
    check_launch(name);
}

}  // namespace

// `up` begins ffn elements after `gate`: if the packs of out are aligned and complete, so are those of both halves.

void swiglu_forward(const Context& ctx, const SwigluForward& args) {
    const Swiglu a{.out = as_device<bf16>(args.out),
                   .dgate_up = nullptr,
                   .gate_up = as_device<bf16>(args.gate_up),
                   .dout = nullptr,
                   .out_stride = args.out.stride[0],
                   .dgate_up_stride = 0,
                   .gate_up_stride = args.gate_up.stride[0],
                   .dout_stride = 0,
                   .rows = static_cast<int>(args.out.size(0)),
                   .ffn = static_cast<int>(args.out.size(1))};
    const bool aligned = has_packs(args.out) && has_packs(args.gate_up);
    launch(ctx, "swiglu_forward", aligned ? forward_kernel<true> : forward_kernel<false>, a);
}

void swiglu_backward(const Context& ctx, const SwigluBackward& args) {
    const Swiglu a{.out = nullptr,
                   .dgate_up = as_device<bf16>(args.dgate_up),
                   .gate_up = as_device<bf16>(args.gate_up),
                   .dout = as_device<bf16>(args.dout),
                   .out_stride = 0,
                   .dgate_up_stride = args.dgate_up.stride[0],
                   .gate_up_stride = args.gate_up.stride[0],
                   .dout_stride = args.dout.stride[0],
                   .rows = static_cast<int>(args.dout.size(0)),
                   .ffn = static_cast<int>(args.dout.size(1))};
    const bool aligned = has_packs(args.dout) && has_packs(args.gate_up) && has_packs(args.dgate_up);
    launch(ctx, "swiglu_backward", aligned ? backward_kernel<true> : backward_kernel<false>, a);
}

}  // namespace colonnade::cuda
