// A CTA moves four rows, so that each thread has four loads in flight. The kernel is limited by memory bandwidth.

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int rows_of_cta = 4, most_threads = 256;

struct Rows {
    __nv_bfloat16* to;
    int64_t to_stride;
    const __nv_bfloat16* from;
    int64_t from_stride;
    const int32_t* rows;
    int count, width;
};

__device__ int column_of_thread() {
    return static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * pack_size;
}

template <bool aligned>
__global__ void __launch_bounds__(most_threads) gather_kernel(Rows a) {
    const int column = column_of_thread(), left = a.width - column;
    const int first = static_cast<int>(blockIdx.x) * rows_of_cta;
    if (left <= 0) return;
    Pack packs[rows_of_cta];
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k)
        if (first + k < a.count)
            packs[k] = load_pack<aligned>(a.from + a.rows[first + k] * a.from_stride + column, left);
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k)
        if (first + k < a.count) store_pack<aligned>(a.to + (first + k) * a.to_stride + column, packs[k], left);
}

/// The CTA of the first of several equal rows sums all of them.
template <bool aligned>
__global__ void __launch_bounds__(most_threads) scatter_kernel(Rows a) {
    const int column = column_of_thread(), left = a.width - column;
    const int first = static_cast<int>(blockIdx.x) * rows_of_cta;
    if (left <= 0) return;
    Pack packs[rows_of_cta];
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k)
        if (first + k < a.count) packs[k] = load_pack<aligned>(a.from + (first + k) * a.from_stride + column, left);
#pragma unroll
    for (int k = 0; k < rows_of_cta; ++k) {
        const int i = first + k;
        if (i >= a.count) return;
        const int32_t row = a.rows[i];
        if (i > 0 && a.rows[i - 1] == row) continue;
        if (i + 1 < a.count && a.rows[i + 1] == row) {
            float sums[pack_size];
#pragma unroll
            for (int e = 0; e < pack_size; ++e) sums[e] = packs[k][e];
            for (int j = i + 1; j < a.count && a.rows[j] == row; ++j) {
                const Pack more = load_pack<aligned>(a.from + j * a.from_stride + column, left);
#pragma unroll
                for (int e = 0; e < pack_size; ++e) sums[e] += more[e];
            }
            packs[k] = pack_of(sums);
        }
        store_pack<aligned>(a.to + row * a.to_stride + column, packs[k], left);
    }
}

using Kernel = void (*)(Rows);

void launch(const Context& ctx, const char* name, Kernel kernel, const Rows& a) {
    if (a.count == 0 || a.width == 0) return;
    const int packs = (a.width + pack_size - 1) / pack_size;
    const int threads = std::min(most_threads, (packs + 31) / 32 * 32);
    const dim3 grid((a.count + rows_of_cta - 1) / rows_of_cta, (packs + threads - 1) / threads);
    kernel<<<grid, threads, 0, stream_of(ctx)>>>(a);
    check_launch(name);
}

}  // namespace

void gather_rows(const Context& ctx, const GatherRows& args) {
    const Rows a{.to = as_device<bf16>(args.out),
                 .to_stride = args.out.stride[0],
                 .from = as_device<bf16>(args.in),
                 .from_stride = args.in.stride[0],
                 .rows = args.rows.as<int32_t>(),
                 .count = static_cast<int>(args.rows.numel()),
                 .width = static_cast<int>(args.in.size(1))};
    const bool aligned = has_packs(args.out) && has_packs(args.in);
    launch(ctx, "gather_rows", aligned ? gather_kernel<true> : gather_kernel<false>, a);
}

void scatter_rows(const Context& ctx, const ScatterRows& args) {
    const Rows a{.to = as_device<bf16>(args.din),
                 .to_stride = args.din.stride[0],
                 .from = as_device<bf16>(args.dout),
                 .from_stride = args.dout.stride[0],
                 .rows = args.rows.as<int32_t>(),
                 .count = static_cast<int>(args.rows.numel()),
                 .width = static_cast<int>(args.din.size(1))};
    if (args.din.numel() == 0) return;
    constexpr size_t element = sizeof(__nv_bfloat16);
    check_cuda(
        cudaMemset2DAsync(a.to, static_cast<size_t>(a.to_stride) * element, 0, static_cast<size_t>(a.width) * element,
                          static_cast<size_t>(args.din.size(0)), stream_of(ctx)),
        "scatter_rows");
    const bool aligned = has_packs(args.din) && has_packs(args.dout);
    launch(ctx, "scatter_rows", aligned ? scatter_kernel<true> : scatter_kernel<false>, a);
}

}  // namespace colonnade::cuda
