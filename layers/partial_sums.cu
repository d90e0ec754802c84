#include "engine/device/gpu.cuh"
#include "engine/device/reduce.cuh"
#include "layers/partial_sums.h"

namespace colonnade::cuda {
namespace {

constexpr int tile = 32;

/// A CTA adds 32 columns: first each warp adds some of the rows, then each warp adds one column.
__global__ void __launch_bounds__(tile* tile) add_partials(AddPartialSums a) {
    __shared__ float sums[tile][tile + 1];
    const int lane = static_cast<int>(threadIdx.x) % tile, warp = static_cast<int>(threadIdx.x) / tile;
    const int64_t first = int64_t{blockIdx.x} * tile;
    float sum = 0;
    if (first + lane < a.width) {
#pragma unroll 4
        for (int64_t row = warp; row < a.count; row += tile) sum += a.partials[row * a.width + first + lane];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    sum = reduce_lanes<tile>(sums[lane][warp], Add{});
    if (lane == 0 && first + warp < a.width) a.sum[first + warp] += sum;
}

}  // namespace

void add_partial_sums(const Context& ctx, const AddPartialSums& args) {
    const auto ctas = static_cast<unsigned>((args.width + tile - 1) / tile);
    add_partials<<<ctas, tile * tile, 0, stream_of(ctx)>>>(args);
    check_launch("add_partial_sums");
}

}  // namespace colonnade::cuda
