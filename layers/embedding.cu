// Gradient of the embedding. A CTA owns 256 columns of one token's row: each warp sums some of the positions, then the
// sums are added in the order of warps. So the order depends on the batch alone, and no two CTAs write the same memory.

#include "engine/device/gpu.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps, columns = 32 * pack_size;

struct Gradient {
    float* dweight;
    int64_t dweight_stride;
    const __nv_bfloat16* dout;
    int64_t dout_stride;
    const int32_t *order, *begins, *ids;
    int width;
};

template <bool aligned>
__global__ void __launch_bounds__(threads) embedding_gradient(Gradient a) {
    __shared__ __align__(16) float partial[warps][columns];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int first = static_cast<int>(blockIdx.y) * columns;
    const int column = first + lane * pack_size, left = a.width - column;
    const int32_t start = a.begins[blockIdx.x];
    const int64_t count = a.begins[blockIdx.x + 1] - start;
    if (count <= 0) return;
    const auto begin = static_cast<int>(count * warp / warps), end = static_cast<int>(count * (warp + 1) / warps);
    float sums[pack_size] = {};
    if (left > 0) {
#pragma unroll 4
        for (int i = begin; i < end; ++i) {
            const Pack pack = load_pack<aligned>(a.dout + a.order[start + i] * a.dout_stride + column, left);
#pragma unroll
            for (int e = 0; e < pack_size; ++e) sums[e] += pack[e];
        }
    }
    auto* const own = reinterpret_cast<float4*>(&partial[warp][lane * pack_size]);
    own[0] = make_float4(sums[0], sums[1], sums[2], sums[3]);
    own[1] = make_float4(sums[4], sums[5], sums[6], sums[7]);
    __syncthreads();
    float* const row = a.dweight + a.ids[blockIdx.x] * a.dweight_stride + first;
#pragma unroll
    for (int c = static_cast<int>(threadIdx.x); c < columns; c += threads) {
        if (first + c >= a.width) break;
        float sum = partial[0][c];
#pragma unroll
        for (int w = 1; w < warps; ++w) sum += partial[w][c];
        row[c] += sum;
    }
}

}  // namespace

void embedding_backward(const Context& ctx, const EmbeddingBackward& args) {
    const Gradient a{.dweight = args.dweight.as<float>(),
                     .dweight_stride = args.dweight.stride[0],
                     .dout = as_device<bf16>(args.dout),
                     .dout_stride = args.dout.stride[0],
                     .order = args.index.order.as<int32_t>(),
                     .begins = args.index.begins.as<int32_t>(),
                     .ids = args.index.ids.as<int32_t>(),
                     .width = static_cast<int>(args.dweight.size(1))};
    if (args.index.distinct == 0 || a.width == 0) return;
    const dim3 grid(static_cast<unsigned>(args.index.distinct), (a.width + columns - 1) / columns);
    const auto kernel = has_packs(args.dout) ? embedding_gradient<true> : embedding_gradient<false>;
    kernel<<<grid, threads, 0, stream_of(ctx)>>>(a);
    check_launch("embedding_backward");
}

}  // namespace colonnade::cuda
