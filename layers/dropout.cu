// A thread handles eight columns of one row: two Philox blocks, one access to each tensor.

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/philox.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int most_threads = 256;

struct Mask {
    uint2 key;
    uint2 stream;
    uint32_t threshold;
    float scale;
    const int32_t* rows;  ///< or null
    int64_t first;
};

struct Kernel {
    __nv_bfloat16* out;
    const __nv_bfloat16* in;
    int64_t out_stride, in_stride;
    int rows, width;
    Mask mask;
};

/// out may alias in: every thread reads its elements before it writes them.
template <bool aligned, bool accumulate>
__global__ void __launch_bounds__(most_threads) dropout_kernel(Kernel a) {
    const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * pack_size, left = a.width - column;
    const int64_t row = blockIdx.x;
    if (left <= 0) return;
    const Pack in = load_pack<aligned>(a.in + row * a.in_stride + column, left);
    __nv_bfloat16* const to = a.out + row * a.out_stride + column;
    const Pack before = accumulate ? load_pack<aligned>(to, left) : zero_pack();
    const int64_t mask_row = a.mask.rows ? a.mask.rows[row] : a.mask.first + row;
    const uint64_t block = static_cast<uint64_t>(mask_row) * static_cast<uint64_t>((a.width + 3) / 4) + column / 4;
    float out[pack_size];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const uint64_t counter = block + half;
        const uint4 r = philox4x32(make_uint4(static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                                              a.mask.stream.x, a.mask.stream.y),
                                   a.mask.key);
        const uint32_t words[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int i = 4 * half + e;
            out[i] = words[e] >= a.mask.threshold ? a.mask.scale * in[i] : 0.0f;
            if (accumulate) out[i] += before[i];
        }
    }
    store_pack<aligned>(to, pack_of(out), left);
}

uint2 halves(uint64_t x) {
    return make_uint2(static_cast<uint32_t>(x), static_cast<uint32_t>(x >> 32));
}

}  // namespace

void dropout(const Context& ctx, const Dropout& args) {
    const Kernel a{.out = as_device<bf16>(args.out),
                   .in = as_device<bf16>(args.in),
                   .out_stride = args.out.stride[0],
                   .in_stride = args.in.stride[0],
                   .rows = static_cast<int>(args.in.size(0)),
                   .width = static_cast<int>(args.in.size(1)),
                   .mask = {.key = halves(args.mask.seed),
                            .stream = halves(args.mask.stream),
                            .threshold = dropout_threshold(args.mask.p),
                            .scale = static_cast<float>(1 / (1 - args.mask.p)),
                            .rows = args.mask.rows.empty() ? nullptr : args.mask.rows.as<int32_t>(),
                            .first = args.mask.first}};
    if (a.rows == 0 || a.width == 0) return;
    const bool aligned = has_packs(args.out) && has_packs(args.in), accumulate = args.mode == Grad::accumulate;
    const auto kernel = aligned ? (accumulate ? dropout_kernel<true, true> : dropout_kernel<true, false>)
                                : (accumulate ? dropout_kernel<false, true> : dropout_kernel<false, false>);
    const int packs = (a.width + pack_size - 1) / pack_size;
    const int threads = std::min(most_threads, (packs + 31) / 32 * 32);
    kernel<<<dim3(a.rows, (packs + threads - 1) / threads), threads, 0, stream_of(ctx)>>>(a);
    check_launch("dropout");
}

}  // namespace colonnade::cuda
