#include "attention/hopper/backward_rows.cuh"

#include "attention/hopper/backward_maps.h"
#include "engine/device/gpu.cuh"

namespace colonnade::hopper {
namespace {

constexpr int threads = 256, block_rows = 64;

/// The block of a CTA: 64 rows of one head.
struct Block {
    int batch, head, first_row;

    __device__ explicit Block(const BackwardRows& p) {
        const int of_head = static_cast<int>(blockIdx.x / static_cast<unsigned>(p.row_blocks));
        batch = of_head / p.heads, head = of_head % p.heads;
        first_row = static_cast<int>(blockIdx.x % static_cast<unsigned>(p.row_blocks)) * block_rows;
    }
};

__device__ __nv_bfloat16* row_of(const RowView& view, const Block& block, int row) {
    return view.data + block.batch * view.batch + row * view.row + block.head * view.head;
}

/// Dot product of eight bf16 each, in f32.
__device__ float dot(const uint4& a, const uint4& b) {
    const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // a bf16 is the upper half of an f32
        sum += __uint_as_float(x[i] << 16) * __uint_as_float(y[i] << 16);
        sum += __uint_as_float(x[i] & 0xffff0000u) * __uint_as_float(y[i] & 0xffff0000u);
    }
    return sum;
}

template <int head_dim>
__global__ void __launch_bounds__(threads) prepare(const __grid_constant__ BackwardRows p) {
    constexpr int lanes = head_dim / 8, at_once = threads / lanes, slabs = head_dim / 64;
    const Block block(p);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % lanes;
    float* statistics = p.statistics + static_cast<int64_t>(blockIdx.x) * 2 * block_rows;
#pragma unroll
    for (int i = 0; i < block_rows / at_once; ++i) {
        const int of_block = i * at_once + thread / lanes, row = block.first_row + of_block;
        float sum = 0;
        if (row < p.rows)
            sum = dot(*reinterpret_cast<const uint4*>(row_of(p.out, block, row) + 8 * lane),
                      *reinterpret_cast<const uint4*>(row_of(p.dout, block, row) + 8 * lane));
#pragma unroll
        for (int apart = lanes / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
        if (lane != 0) continue;
        const float lse =
            row < p.rows ? p.lse[(static_cast<int64_t>(block.batch) * p.heads + block.head) * p.rows + row] : -INFINITY;
        const bool sees = lse != -INFINITY;
        statistics[of_block] = sees ? lse * 1.44269504f : INFINITY;
        statistics[block_rows + of_block] = sees ? sum : 0.0f;
    }
    if constexpr (head_dim < 256) {  // wide heads have no sums of dQ in memory
        auto* sums = reinterpret_cast<float4*>(p.sums + static_cast<int64_t>(blockIdx.x) * slabs * sum_block);
#pragma unroll
        for (int i = 0; i < slabs * sum_block / 4 / threads; ++i) sums[i * threads + thread] = float4{};
        if (thread == 0) p.tickets[blockIdx.x] = 0;
    }
    for (int i = thread; blockIdx.x == 0 && i < p.cleared; i += threads) p.next[i] = 0;
}

template <int head_dim>
__global__ void __launch_bounds__(threads) finish(const __grid_constant__ BackwardRows p) {
    constexpr int slabs = head_dim / 64;
    const Block block(p);
    const int thread = static_cast<int>(threadIdx.x), j = thread % 8, row = thread / 8 % 8, warp = thread / 64;
#pragma unroll
    for (int slab = 0; slab < slabs; ++slab) {
        const auto* from = reinterpret_cast<const float4*>(
            p.sums + (static_cast<int64_t>(blockIdx.x) * slabs + slab) * sum_block + sums_of(j, warp, row));
        uint32_t upper[4], lower[4];
#pragma unroll
        for (int l = 0; l < 4; ++l) {
            const float4 x = from[l];
            const __nv_bfloat162 u = __floats2bfloat162_rn(x.x * p.scale, x.y * p.scale),
                                 d = __floats2bfloat162_rn(x.z * p.scale, x.w * p.scale);
            upper[l] = reinterpret_cast<const uint32_t&>(u), lower[l] = reinterpret_cast<const uint32_t&>(d);
        }
        const int first = block.first_row + 16 * warp + row, column = 64 * slab + 8 * j;
        if (first < p.rows)
            *reinterpret_cast<uint4*>(row_of(p.dq, block, first) + column) = {upper[0], upper[1], upper[2], upper[3]};
        if (first + 8 < p.rows)
            *reinterpret_cast<uint4*>(row_of(p.dq, block, first + 8) + column) = {lower[0], lower[1], lower[2],
                                                                                  lower[3]};
    }
}

}  // namespace

RowView row_view(const Tensor& tensor) {
    return {as_device<bf16>(tensor), tensor.stride[0], tensor.stride[1], tensor.stride[2]};
}

void prepare_rows(cudaStream_t stream, const BackwardRows& args, int head_dim) {
    const auto kernel = head_dim == 64 ? prepare<64> : head_dim == 128 ? prepare<128> : prepare<256>;
    kernel<<<static_cast<unsigned>(args.blocks), threads, 0, stream>>>(args);
    check_launch("flashmask backward");
}

void finish_rows(cudaStream_t stream, const BackwardRows& args, int head_dim) {
    const auto kernel = head_dim == 64 ? finish<64> : finish<128>;
    kernel<<<static_cast<unsigned>(args.blocks), threads, 0, stream>>>(args);
    check_launch("flashmask backward");
}

}  // namespace colonnade::hopper
