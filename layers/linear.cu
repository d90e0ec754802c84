// Bias gradient: column sums in two stages (layers/partial_sums.h). A CTA sums 256 columns over one part of the rows;
// each of its warps takes every eighth row.

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"
#include "layers/partial_sums.h"

namespace colonnade::cuda {
namespace {

constexpr int warps = 8, threads = 32 * warps, columns = 32 * pack_size;

struct ColumnSums {
    float* partials;  ///< [gridDim.y, width]
    const __nv_bfloat16* in;
    int64_t stride, rows;
    int width;
};

template <bool aligned>
__global__ void __launch_bounds__(threads) column_sums(ColumnSums a) {
    __shared__ __align__(16) float partial[warps][columns];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int first = static_cast<int>(blockIdx.x) * columns;
    const int column = first + lane * pack_size, left = a.width - column;
    const int64_t begin = a.rows * blockIdx.y / gridDim.y, end = a.rows * (blockIdx.y + 1) / gridDim.y;
    float sums[pack_size] = {};
    if (left > 0) {
#pragma unroll 4
        for (int64_t row = begin + warp; row < end; row += warps) {
            const Pack pack = load_pack<aligned>(a.in + row * a.stride + column, left);
#pragma unroll
            for (int e = 0; e < pack_size; ++e) sums[e] += pack[e];
        }
    }
    auto* const own = reinterpret_cast<float4*>(&partial[warp][lane * pack_size]);
    own[0] = make_float4(sums[0], sums[1], sums[2], sums[3]);
    own[1] = make_float4(sums[4], sums[5], sums[6], sums[7]);
    __syncthreads();
    const int c = static_cast<int>(threadIdx.x);
    if (first + c >= a.width) return;
    float sum = partial[0][c];
#pragma unroll
    for (int w = 1; w < warps; ++w) sum += partial[w][c];
    a.partials[int64_t{blockIdx.y} * a.width + first + c] = sum;
}
static_assert(threads == columns);

}  // namespace

void bias_gradient(const Context& ctx, const LinearBackward& args) {
    const ColumnSums a{.partials = reinterpret_cast<float*>(args.scratch.data),
                       .in = as_device<bf16>(args.dout),
                       .stride = args.dout.stride[0],
                       .rows = args.dout.size(0),
                       .width = static_cast<int>(args.dout.size(1))};
    if (a.rows == 0 || a.width == 0) return;
    // At least four rows per warp.
    const int64_t parts = std::clamp<int64_t>(a.rows / (4 * warps), 1, bias_partials);
    const dim3 grid((a.width + columns - 1) / columns, static_cast<unsigned>(parts));
    const auto kernel = has_packs(args.dout) ? column_sums<true> : column_sums<false>;
    kernel<<<grid, threads, 0, stream_of(ctx)>>>(a);
    check_launch("bias_gradient");
    add_partial_sums(ctx, {.sum = args.dbias.as<float>(), .partials = a.partials, .count = parts, .width = a.width});
}

}  // namespace colonnade::cuda
