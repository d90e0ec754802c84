// Few rows times a weight, at the speed of reading the weight. A CTA computes 8 columns of y = x W^T for up to 8 or 16
// rows of x with mma m16n8k16: x is the left operand, and 8 rows of W are the columns of the right one. The order of the
// elements in k does not matter as long as both operands agree, so that each thread takes 16 bytes in a row: lane (g, c)
// has elements [8 c, 8 c + 8) of a step of 32, from row g of W and from rows g and g + 8 of x. That is two mma. The warps
// of a CTA take batches of four steps in turn, 256 bytes of a row; their sums are added in shared memory in a fixed order.
//
// A thread copies weights to its own places in shared memory (cp.async), two batches ahead and across the borders of
// tiles, so that they need neither registers nor barriers. The CTAs fill every multiprocessor equally: a kernel that
// leaves room to the next one lets it crowd some of them.
//
// RMSNorm: y = r * W (norm * x), with r = 1 / sqrt(mean(x^2) + eps), so that r is known when it is needed, at the end.
//
// On Hopper a kernel starts while the one before it ends (programmatic dependent launch): it copies its first weights,
// which no kernel writes, before it waits for the others' results.

#include <algorithm>

#include "engine/device/dependent_launch.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int warps = 8, threads = 32 * warps, tile_rows = 8, step = 32, batch = 4, ahead = 2;
constexpr int most_slices = 3;

struct Slice {
    const __nv_bfloat16* b;  ///< [columns, rank]
    int begin, columns;
    int64_t stride;
};

struct Problem {
    void* out;
    bool f32;  ///< of out; else bf16
    const __nv_bfloat16 *in, *weight, *bias, *norm, *add;
    int64_t out_stride, in_stride, weight_stride, add_stride;
    int rows, n, k;
    float eps;
    const float* h;  ///< [rows, slices * rank] or null
    Slice slices[most_slices];
    int slice_count, rank;
    float scale;
    bool whole_packs;  ///< of every row of B
};

__device__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// Multiplies x by the norm's weight, and adds to the sum of squares of x.
__device__ Pack normed(const Pack& x, const Pack& norm, float& squares) {
    float product[pack_size];
#pragma unroll
    for (int i = 0; i < pack_size; ++i) {
        squares += x[i] * x[i];
        product[i] = x[i] * norm[i];
    }
    return pack_of(product);
}

/// scale * B_i h_i for one column of the output.
__device__ float low_rank(const Problem& p, int row, int column) {
    const float* h = p.h + static_cast<int64_t>(row) * p.slice_count * p.rank;
    for (int i = 0; i < p.slice_count; ++i, h += p.rank) {
        const int j = column - p.slices[i].begin;
        if (j < 0 || j >= p.slices[i].columns) continue;
        const __nv_bfloat16* const b = p.slices[i].b + j * p.slices[i].stride;
        float sum = 0;
        if (p.whole_packs)
            for (int r = 0; r < p.rank; r += pack_size) {
                const Pack some = load_pack<true>(b + r, pack_size);
#pragma unroll
                for (int e = 0; e < pack_size; ++e) sum += some[e] * h[r + e];
            }
        else
            for (int r = 0; r < p.rank; ++r) sum += __bfloat162float(b[r]) * h[r];
        return p.scale * sum;
    }
    return 0;
}

/// What is added to the product for one element.
__device__ float rest(const Problem& p, int row, int column) {
    float sum = p.bias ? __bfloat162float(p.bias[column]) : 0;
    if (p.slice_count > 0) sum += low_rank(p, row, column);
    return sum;
}

__device__ void store(const Problem& p, int row, int column, float value) {
    if (p.add) value += __bfloat162float(p.add[row * p.add_stride + column]);
    const int64_t at = row * p.out_stride + column;
    if (p.f32)
        static_cast<float*>(p.out)[at] = value;
    else
        static_cast<__nv_bfloat16*>(p.out)[at] = __float2bfloat16_rn(value);
}

__device__ float silu(float x) {
    return x / (1 + __expf(-x));
}

/// A tile is eight rows of W, or with swiglu four of gate and the same four of up.
template <bool swiglu>
__device__ const __nv_bfloat16* weights_of_lane(const Problem& p, int tile, int g, int c) {
    const int row = swiglu ? tile * 4 + g % 4 + g / 4 * (p.n / 2) : tile * tile_rows + g;
    return p.weight + min(row, p.n - 1) * p.weight_stride + 8 * c;  // rows past the end are not stored
}

template <int groups>
struct Sums {
    float product[warps][8 * groups][tile_rows + 1];
    float squares[warps][8 * groups];
};

/// Adds the sums of the warps and stores a tile.
template <int groups, bool has_norm, bool swiglu>
__device__ void finish_tile(const Problem& p, const Sums<groups>& sums, int tile) {
    const auto total = [&](int row, int column) {
        float sum = 0, square = 0;
#pragma unroll
        for (int w = 0; w < warps; ++w) {
            sum += sums.product[w][row][column];
            if constexpr (has_norm) square += sums.squares[w][row];
        }
        return has_norm ? sum * rsqrtf(square / static_cast<float>(p.k) + p.eps) : sum;
    };
    constexpr int columns = swiglu ? tile_rows / 2 : tile_rows;
    const int i = static_cast<int>(threadIdx.x), row = i / columns, column = i % columns, j = tile * columns + column;
    static_assert(8 * groups * columns <= threads);
    const int half = p.n / 2;
    if (row >= p.rows || j >= (swiglu ? half : p.n)) return;
    if constexpr (swiglu) {
        const float gate = total(row, column) + rest(p, row, j);
        const float up = total(row, column + columns) + rest(p, row, half + j);
        store(p, row, j, silu(gate) * up);
    } else {
        store(p, row, j, total(row, column) + rest(p, row, j));
    }
}

/// Copies 16 bytes to shared memory while the thread goes on, or sets them to zero.
__device__ void copy_pack(Pack* to, const __nv_bfloat16* from, bool exists) {
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(
                     static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                 "l"(from), "r"(exists ? 16 : 0)
                 : "memory");
}

/// Where a warp is: its batches of all of the CTA's tiles, one after the other.
struct Cursor {
    int tile, batch;
};

/// CTAs that fill a multiprocessor.
constexpr int ctas_at_once(int groups) {
    return groups == 1 ? 4 : 3;
}

/// groups: of eight rows of x.
template <int groups, bool has_norm, bool swiglu>
__global__ void __launch_bounds__(threads, ctas_at_once(groups))
    linear_kernel(const __grid_constant__ Problem p, int tiles) {
    __shared__ Pack ring[ahead][batch][threads];  // a thread reads what it has copied itself
    __shared__ Sums<groups> both_sums[2];         // of a tile while the warps are at the next one
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int g = lane / 4, c = lane % 4, steps = p.k / step, batches = (steps + batch - 1) / batch;
    Cursor fetched{static_cast<int>(blockIdx.x), warp};
    const auto fetch = [&](int slot) {
        if (fetched.tile < tiles && fetched.batch < batches) {
            const int s = fetched.batch * batch;
            const __nv_bfloat16* const from = weights_of_lane<swiglu>(p, fetched.tile, g, c) + s * step;
#pragma unroll
            for (int i = 0; i < batch; ++i) copy_pack(&ring[slot][i][threadIdx.x], from + i * step, s + i < steps);
            fetched.batch += warps;
            if (fetched.batch >= batches) fetched = {fetched.tile + static_cast<int>(gridDim.x), warp};
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
#pragma unroll
    for (int i = 0; i < ahead; ++i) fetch(i);
    wait_for_previous_kernels();
    allow_next_kernel();

    int slot = 0;
    for (int tile = static_cast<int>(blockIdx.x), turn = 0; tile < tiles;
         tile += static_cast<int>(gridDim.x), turn ^= 1) {
        float acc[4] = {}, squares[groups] = {};
        for (int b = warp; b < batches; b += warps) {
            Pack norm[batch], x[batch][groups];
#pragma unroll
            for (int i = 0; i < batch; ++i) {
                const int s = b * batch + i, at = s * step + 8 * c;
                const bool exists = s < steps;
                if constexpr (has_norm) norm[i] = exists ? load_pack<true>(p.norm + at, pack_size) : zero_pack();
#pragma unroll
                for (int q = 0; q < groups; ++q)
                    x[i][q] = exists && 8 * q + g < p.rows
                                  ? load_pack<true>(p.in + (8 * q + g) * p.in_stride + at, pack_size)
                                  : zero_pack();
            }
            asm volatile("cp.async.wait_group %0;" ::"n"(ahead - 1) : "memory");
#pragma unroll
            for (int i = 0; i < batch; ++i) {
                const Pack w = ring[slot][i][threadIdx.x];
                if constexpr (has_norm)
#pragma unroll
                    for (int q = 0; q < groups; ++q) x[i][q] = normed(x[i][q], norm[i], squares[q]);
                const Pack low = x[i][0], high = groups > 1 ? x[i][groups - 1] : zero_pack();
                mma(acc, low.words[0], high.words[0], low.words[1], high.words[1], w.words[0], w.words[1]);
                mma(acc, low.words[2], high.words[2], low.words[3], high.words[3], w.words[2], w.words[3]);
            }
            fetch(slot);
            slot = (slot + 1) % ahead;
        }
        Sums<groups>& sums = both_sums[turn];
#pragma unroll
        for (int q = 0; q < groups; ++q) {
            sums.product[warp][8 * q + g][2 * c] = acc[2 * q];
            sums.product[warp][8 * q + g][2 * c + 1] = acc[2 * q + 1];
            if constexpr (has_norm) {
                float all = squares[q];
                all += __shfl_xor_sync(0xffffffffu, all, 1);
                all += __shfl_xor_sync(0xffffffffu, all, 2);
                if (c == 0) sums.squares[warp][8 * q + g] = all;
            }
        }
        __syncthreads();
        finish_tile<groups, has_norm, swiglu>(p, sums, tile);
    }
}

/// Adds what is left to a product of many rows.
template <bool swiglu>
__global__ void __launch_bounds__(threads) finish_kernel(const __grid_constant__ Problem p, const float* product) {
    const int width = swiglu ? p.n / 2 : p.n;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i >= static_cast<int64_t>(p.rows) * width) return;
    const int row = static_cast<int>(i / width), j = static_cast<int>(i % width);
    const float* const y = product + static_cast<int64_t>(row) * p.n;
    if constexpr (swiglu) {
        const float gate = y[j] + rest(p, row, j), up = y[width + j] + rest(p, row, width + j);
        store(p, row, j, silu(gate) * up);
    } else {
        store(p, row, j, y[j] + rest(p, row, j));
    }
}

const __nv_bfloat16* pointer(const Tensor& t) {
    return t.empty() ? nullptr : as_device<bf16>(t);
}

Problem problem_of(const DecodeLinear& a, const Tensor& h) {
    Problem p{.out = a.out.data,
              .f32 = a.out.dtype == DType::f32,
              .in = pointer(a.in),
              .weight = pointer(a.weight),
              .bias = pointer(a.bias),
              .norm = pointer(a.norm),
              .add = pointer(a.add),
              .out_stride = a.out.stride[0],
              .in_stride = a.in.stride[0],
              .weight_stride = a.weight.stride[0],
              .add_stride = a.add.empty() ? 0 : a.add.stride[0],
              .rows = static_cast<int>(a.in.size(0)),
              .n = static_cast<int>(a.weight.size(0)),
              .k = static_cast<int>(a.weight.size(1)),
              .eps = static_cast<float>(a.eps),
              .h = h.empty() ? nullptr : h.as<float>(),
              .slices = {},
              .slice_count = 0,
              .rank = 0,
              .scale = 0,
              .whole_packs = false};
    if (h.empty()) return p;
    const LowRank& w = *a.adapters;
    require(std::ssize(w.slices) <= most_slices, "decode_linear: {} adapters of one layer", w.slices.size());
    for (const LowRank::Slice& s : w.slices)
        p.slices[p.slice_count++] = {as_device<bf16>(s.b), static_cast<int>(s.begin), static_cast<int>(s.b.size(0)),
                                     s.b.stride[0]};
    p.rank = static_cast<int>(w.slices.front().b.size(1));
    p.scale = static_cast<float>(w.scale);
    p.whole_packs = std::ranges::all_of(w.slices, [](const LowRank::Slice& slice) { return has_packs(slice.b); });
    return p;
}

template <int groups, bool has_norm, bool swiglu>
void launch(const Context& ctx, const Problem& p) {
    const int columns = swiglu ? tile_rows / 2 : tile_rows, width = swiglu ? p.n / 2 : p.n;
    const int tiles = (width + columns - 1) / columns;
    const auto kernel = linear_kernel<groups, has_norm, swiglu>;
    const auto most = static_cast<unsigned>(ctas_at_once(groups) * ctx.gpu->multiprocessors());
    const unsigned ctas = std::min(static_cast<unsigned>(tiles), most);
    launch_dependent(ctx, kernel, {.ctas = dim3(ctas), .threads = threads}, p, tiles);
}

template <int groups>
void launch(const Context& ctx, const Problem& p, bool swiglu) {
    if (p.norm)
        swiglu ? launch<groups, true, true>(ctx, p) : launch<groups, true, false>(ctx, p);
    else
        swiglu ? launch<groups, false, true>(ctx, p) : launch<groups, false, false>(ctx, p);
}

void launch(const Context& ctx, const DecodeLinear& a, const Tensor& h) {
    const Problem p = problem_of(a, h);
    const bool swiglu = a.finish == DecodeFinish::swiglu;
    p.rows <= 8 ? launch<1>(ctx, p, swiglu) : launch<2>(ctx, p, swiglu);
    check_launch("decode_linear");
}

/// Whether 16 bytes at a time can be read from rows of whole steps.
bool has_steps(const Tensor& rows) {
    return has_packs(rows) && rows.size(rows.rank - 1) % step == 0;
}

}  // namespace

bool decode_kernel_takes(const DecodeLinear& a) {
    const bool adapted = a.adapters && !a.adapters->empty();
    return a.in.size(0) <= decode_rows && has_steps(a.in) && has_steps(a.weight) && has_packs(a.norm) &&
           (!adapted || has_packs(a.adapters->a));
}

void decode_linear(const Context& ctx, const DecodeLinear& a) {
    const PhaseTimer timer(ctx, "linear");
    Tensor h;
    if (a.adapters && !a.adapters->empty()) {
        const int64_t rows = a.in.size(0), width = a.adapters->a.size(0);
        h = a.scratch.h.slice(0, 0, rows * width).view({rows, width});
        launch(ctx, {.out = h, .in = a.in, .weight = a.adapters->a, .norm = a.norm, .eps = a.eps, .scratch = a.scratch},
               {});
    }
    launch(ctx, a, h);
}

void finish_decode_linear(const Context& ctx, const DecodeFinishing& args) {
    const DecodeLinear& a = args.linear;
    const PhaseTimer timer(ctx, "linear");
    const Problem p = problem_of(a, args.h);
    const bool swiglu = a.finish == DecodeFinish::swiglu;
    const int64_t elements = static_cast<int64_t>(p.rows) * (swiglu ? p.n / 2 : p.n);
    const auto kernel = swiglu ? finish_kernel<true> : finish_kernel<false>;
    kernel<<<static_cast<unsigned>((elements + threads - 1) / threads), threads, 0, stream_of(ctx)>>>(
        p, args.product.as<float>());
    check_launch("finish_decode_linear");
}

}  // namespace colonnade::cuda
