// Operands in e4m3. The kernels are limited by memory bandwidth: they read two bytes of each element, or one if it is a
// code already, and write one.

#include <cuda_fp8.h>

#include "engine/device/gpu.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, group = static_cast<int>(fp8_neighbours);

/// The largest of |x| in a pack, as bits of f32: NaN is above infinity, and that above all numbers.
__device__ uint32_t largest_bits(const Pack& pack) {
    uint32_t largest = 0;
#pragma unroll
    for (int e = 0; e < pack_size; ++e) largest = max(largest, __float_as_uint(pack[e]) & 0x7fffffffu);
    return largest;
}

/// Codes of four elements, the first in the lowest byte.
__device__ uint32_t codes_of(float a, float b, float c, float d) {
    const uint32_t low = __nv_cvt_float2_to_fp8x2({a, b}, __NV_SATFINITE, __NV_E4M3),
                   high = __nv_cvt_float2_to_fp8x2({c, d}, __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}
/// Of a pack, times `inverse`.
__device__ uint2 codes_of(const Pack& p, float inverse) {
    return {codes_of(p[0] * inverse, p[1] * inverse, p[2] * inverse, p[3] * inverse),
            codes_of(p[4] * inverse, p[5] * inverse, p[6] * inverse, p[7] * inverse)};
}

// --- Rows: 16 lanes round a group, a warp two neighbouring groups of four rows ----------------------------------------

constexpr int rows_of_warp = 4, rows_of_cta = threads / 32 * rows_of_warp;

struct RowsToRound {
    uint8_t* codes;
    float *scales, *last_scales;  ///< of the first `whole` rows, a multiple of four; of the others
    const __nv_bfloat16* in;
    int64_t stride;
    int rows, columns, whole;
};

__global__ void __launch_bounds__(threads) round_rows(RowsToRound a) {
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    const int column = static_cast<int>(blockIdx.y) * 2 * group + lane * pack_size,
              first = static_cast<int>(blockIdx.x) * rows_of_cta + warp;
    Pack packs[rows_of_warp];
#pragma unroll
    for (int k = 0; k < rows_of_warp; ++k) {
        const int row = first + k * (threads / 32);
        const bool exists = row < a.rows && column < a.columns;
        packs[k] = exists ? load_pack<true>(a.in + row * a.stride + column, pack_size) : zero_pack();
    }
#pragma unroll
    for (int k = 0; k < rows_of_warp; ++k) {
        const int row = first + k * (threads / 32);
        uint32_t largest = largest_bits(packs[k]);
#pragma unroll
        for (int other = 8; other > 0; other /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, other));
        if (row >= a.rows || column >= a.columns) continue;
        const uint32_t scale = fp8_scale_bits(largest);
        *reinterpret_cast<uint2*>(a.codes + int64_t{row} * a.columns + column) =
            codes_of(packs[k], __uint_as_float(fp8_inverse_bits(scale)));
        if (lane % 16 > 0) continue;
        const int64_t of_group = column / group;
        float* const to =
            row < a.whole ? a.scales + of_group * a.whole + row : a.last_scales + of_group * 4 + (row - a.whole);
        *to = __uint_as_float(scale);
    }
}

// --- Weights: a CTA handles a block -----------------------------------------------------------------------------------

struct WeightBlocks {
    uint8_t* codes;  ///< [rows, columns], or the transpose
    float* scales;   ///< of a block of them
    int64_t stride;  ///< elements from one row of `codes` to the next
    int scale_stride;
    const __nv_bfloat16* in;  ///< to be rounded,
    const uint8_t* in_codes;  ///< or codes
    const float* in_scales;   ///< of them
    int rows, columns;        ///< of `in`
    __device__ int top() const { return static_cast<int>(blockIdx.y) * group; }
    __device__ int left() const { return static_cast<int>(blockIdx.x) * group; }
};

// A thread has twice four rows of eight columns.
__device__ int column_of_thread() {
    return static_cast<int>(threadIdx.x) % 16 * pack_size;
}
__device__ int row_of_thread(int half) {
    return 64 * half + static_cast<int>(threadIdx.x) / 16 * 4;
}

/// The bytes that four words have at one place, as a word.
__device__ uint32_t column_of_rows(const uint32_t (&rows)[4], int place) {
    const unsigned pair = static_cast<unsigned>(place | (4 + place) << 4);
    return __byte_perm(__byte_perm(rows[0], rows[1], pair), __byte_perm(rows[2], rows[3], pair), 0x5410);
}

template <bool transposed>
__device__ void store_block(const WeightBlocks& a, const uint2 (&codes)[2][4], float scale) {
    const int column = column_of_thread();
    if (threadIdx.x == 0) {
        const unsigned down = transposed ? blockIdx.x : blockIdx.y, across = transposed ? blockIdx.y : blockIdx.x;
        a.scales[down * a.scale_stride + across] = scale;
    }
    if constexpr (transposed) {
        // Four rows of a column in a word. The words of a column are an odd number apart, so that banks differ.
        constexpr int words = group / 4 + 1;
        __shared__ uint32_t turned[group * words];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const uint32_t low[4] = {codes[h][0].x, codes[h][1].x, codes[h][2].x, codes[h][3].x},
                           high[4] = {codes[h][0].y, codes[h][1].y, codes[h][2].y, codes[h][3].y};
#pragma unroll
            for (int e = 0; e < pack_size; ++e)
                turned[(column + e) * words + row_of_thread(h) / 4] = column_of_rows(e < 4 ? low : high, e % 4);
        }
        __syncthreads();
        const int lane = static_cast<int>(threadIdx.x) % 32, row = a.top() + 4 * lane;
        if (row >= a.rows) return;
        for (int c = static_cast<int>(threadIdx.x) / 32; c < group && a.left() + c < a.columns; c += threads / 32)
            *reinterpret_cast<uint32_t*>(a.codes + (a.left() + c) * a.stride + row) = turned[c * words + lane];
    } else {
        if (a.left() + column >= a.columns) return;
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const int row = a.top() + row_of_thread(h) + r;
                if (row < a.rows) *reinterpret_cast<uint2*>(a.codes + row * a.stride + a.left() + column) = codes[h][r];
            }
    }
}

/// Calls body(half, r, element) for what exists of this thread's rows.
template <typename Body>
__device__ void each_row(const WeightBlocks& a, Body&& body) {
    const int column = a.left() + column_of_thread();
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int row = a.top() + row_of_thread(h) + r;
            if (row < a.rows && column < a.columns) body(h, r, int64_t{row} * a.columns + column);
        }
}

template <bool transposed>
__global__ void __launch_bounds__(threads) round_weight(WeightBlocks a) {
    __shared__ uint32_t largest_of[threads / 32];
    Pack packs[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) packs[i / 4][i % 4] = zero_pack();
    each_row(a, [&](int h, int r, int64_t at) { packs[h][r] = load_pack<true>(a.in + at, pack_size); });
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = max(largest, largest_bits(packs[i / 4][i % 4]));
#pragma unroll
    for (int other = 16; other > 0; other /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, other));
    if (threadIdx.x % 32 == 0) largest_of[threadIdx.x / 32] = largest;
    __syncthreads();
#pragma unroll
    for (const uint32_t other : largest_of) largest = max(largest, other);
    const uint32_t scale = fp8_scale_bits(largest);
    uint2 codes[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i)
        codes[i / 4][i % 4] = codes_of(packs[i / 4][i % 4], __uint_as_float(fp8_inverse_bits(scale)));
    store_block<transposed>(a, codes, __uint_as_float(scale));
}

template <bool transposed>
__global__ void __launch_bounds__(threads) copy_codes(WeightBlocks a) {
    uint2 codes[2][4] = {};
    each_row(a, [&](int h, int r, int64_t at) { codes[h][r] = *reinterpret_cast<const uint2*>(a.in_codes + at); });
    store_block<transposed>(a, codes, a.in_scales[blockIdx.y * gridDim.x + blockIdx.x]);
}

unsigned blocks_of(int64_t n, int64_t block) {
    return static_cast<unsigned>((n + block - 1) / block);
}

}  // namespace

void quantise_rows(const Context& ctx, const QuantiseRows& args) {
    const int64_t rows = args.in.size(0), columns = args.in.size(1);
    require(has_packs(args.in), "quantise_rows: {} with rows {} apart: expected multiples of 8 elements", args.in,
            args.in.stride[0]);
    const dim3 grid(blocks_of(rows, rows_of_cta), blocks_of(columns, 2 * group));
    round_rows<<<grid, threads, 0, stream_of(ctx)>>>(
        {.codes = args.codes.as<uint8_t>(),
         .scales = args.scales.as<float>(),
         .last_scales = args.last_scales.empty() ? nullptr : args.last_scales.as<float>(),
         .in = as_device<bf16>(args.in),
         .stride = args.in.stride[0],
         .rows = static_cast<int>(rows),
         .columns = static_cast<int>(columns),
         .whole = static_cast<int>(args.codes.size(0))});
    check_launch("quantise_rows");
}

static void launch_blocks(const Context& ctx, void (*kernel)(WeightBlocks), const WeightBlocks& a) {
    const dim3 grid(blocks_of(a.columns, group), blocks_of(a.rows, group));
    kernel<<<grid, threads, 0, stream_of(ctx)>>>(a);
    check_launch("weight_codes");
}

void weight_codes(const Context& ctx, const WeightCodes& args) {
    WeightBlocks a{.codes = args.codes.as<uint8_t>(),
                   .scales = args.scales.as<float>(),
                   .stride = args.codes.stride[0],
                   .scale_stride = static_cast<int>(args.scales.stride[0]),
                   .in = nullptr,
                   .in_codes = nullptr,
                   .in_scales = nullptr,
                   .rows = static_cast<int>(args.codes.size(args.transposed ? 1 : 0)),
                   .columns = static_cast<int>(args.codes.size(args.transposed ? 0 : 1))};
    if (args.matrix) {
        a.in_codes = args.matrix->codes.as<uint8_t>(), a.in_scales = args.matrix->scales.as<float>();
        return launch_blocks(ctx, args.transposed ? copy_codes<true> : copy_codes<false>, a);
    }
    require(args.in.contiguous() && has_packs(args.in),
            "weight_codes: {}: expected rows of 8 elements, one after another", args.in);
    a.in = as_device<bf16>(args.in);
    launch_blocks(ctx, args.transposed ? round_weight<true> : round_weight<false>, a);
}

}  // namespace colonnade::cuda
