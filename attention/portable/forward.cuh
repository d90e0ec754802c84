#pragma once
// Parts of the portable forward kernel (attention/portable/forward.cu): the work of a CTA, the walk over its active
// tiles, copies into shared memory, the two products, the element mask, the online softmax, and the output. Not for use
// elsewhere.
//
// Registers limit the speed: output sums and the scores of a tile fill three quarters of them. Values that are used
// once per tile are therefore computed again or kept in shared memory.

#include <cfloat>
#include <climits>
#include <cmath>

#include "attention/portable/mma.cuh"
#include "attention/tile_plan.h"

namespace colonnade::portable::forward {

constexpr int tile = GpuTilePlan::tile, warps = 4, threads = 32 * warps;
constexpr unsigned whole_warp = 0xffffffffu;

/// A view [batch, tokens, heads, head_dim], strides in elements; offsets take 64 bits.
struct Heads {
    __nv_bfloat16* data;
    int64_t batch, head;
    int token;
    __device__ __nv_bfloat16* of(int b, int h) const { return data + b * batch + h * head; }
};

struct Problem {
    Heads q, k, v, out;
    float* lse;
    const int4* bounds;
    const uint32_t *active, *partial;
    const int32_t* order;
    int64_t padded_columns;
    int rows, columns, heads;
    int group;                ///< query heads per key/value head
    int mask_heads, sharing;  ///< sharing: query heads per mask head
    int row_blocks, words;    ///< words: per row block in a bit map
    bool causal;
    float scale;           ///< times log2(e): scores are powers of two
    const int* positions;  ///< GpuTilePlan::positions; null if the mask has no window of positions
    int window;            ///< of the positions
};

/// Sizes for a head dim. A warp of 32 rows uses every fragment of K and V twice, which halves the traffic of shared
/// memory: with 16 rows per warp it would take as long as the products. At head dim 256 registers hold the sums of 16
/// rows only.
template <int head_dim>
struct Shape {
    static constexpr int row_tiles = head_dim == 256 ? 1 : 2;  // of 16 rows, per warp
    static constexpr int warp_rows = 16 * row_tiles, rows = warps * warp_rows;
    static constexpr int ctas_per_entry = 2 * tile / rows;  // an entry of the schedule is two row blocks
    static constexpr int min_ctas(int stages) { return head_dim == 64 && stages == 2 ? 3 : 2; }
    static constexpr int row_bytes = head_dim * 2;
    static constexpr int warp_bytes = warp_rows * row_bytes, q_bytes = rows * row_bytes, tile_bytes = tile * row_bytes;
    static constexpr int bounds_bytes = tile * sizeof(int4);
};

/// The CTA's part of the operands, kept in shared memory.
struct Place {
    const __nv_bfloat16 *k, *v;
    const int4* bounds;
    int first_row;
};

template <int head_dim>
constexpr int shared_bytes(int stages) {
    using S = Shape<head_dim>;
    return S::q_bytes + 2 * stages * S::tile_bytes + 2 * S::bounds_bytes + static_cast<int>(sizeof(Place));
}

/// threadIdx.x, read again each time, so that values that depend on it are not kept in registers throughout the kernel.
__device__ inline int thread_index() {
    int index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index;
}
__device__ inline int lane_index() {
    return thread_index() % 32;
}
__device__ inline int warp_index() {
    return thread_index() / 32;
}

/// The work of a CTA. Heads that share a mask are neighbours, so that they read the same keys at about the same time.
template <int head_dim>
struct Work {
    int sheet, b, h;
    int block;  ///< index of the CTA's first 64 rows

    __device__ explicit Work(const Problem& p) {
        constexpr int parts = Shape<head_dim>::ctas_per_entry;
        const int item = static_cast<int>(blockIdx.x) / parts, row_pairs = (p.row_blocks + 1) / 2;
        const int entry = p.order[item / p.sharing];
        sheet = entry / row_pairs;
        b = sheet / p.mask_heads;
        h = sheet % p.mask_heads * p.sharing + item % p.sharing;
        block = entry % row_pairs * 2 + static_cast<int>(blockIdx.x) % parts;
    }
};

/// The tiles that are active for any warp of the CTA, in ascending order. Lane l holds word l of a chunk of 32 words,
/// so that memory is read once for 1024 tiles.
template <int head_dim>
class TileWalk {
  public:
    // A tile is one integer, which takes one register: index * 8 + flags; negative after the last tile.
    static constexpr int mine = 1;         ///< active for this warp
    static constexpr int mine_masked = 2;  ///< partial for this warp
    static constexpr int masked = 4;       ///< partial for any warp
    __device__ static int first_column(int found) { return (found >> 3) * tile; }

    __device__ explicit TileWalk(const Problem& p) { load(p); }

    __device__ int next(const Problem& p) {
        unsigned lanes = __ballot_sync(whole_warp, left_ != 0);
        while (lanes == 0) {
            chunk_ += 32;
            if (chunk_ >= p.words) return -1;
            load(p);
            lanes = __ballot_sync(whole_warp, left_ != 0);
        }
        const int lane = __ffs(lanes) - 1, bit = __ffs(__shfl_sync(whole_warp, left_, lane)) - 1;
        if (lane_index() == lane) left_ &= left_ - 1;
        const auto flag = [&](uint32_t word) {
            return static_cast<int>(__shfl_sync(whole_warp, word, lane) >> bit & 1);
        };
        return ((chunk_ + lane) * 32 + bit) * 8 + flag(mine_) * mine + flag(mine_masked_) * mine_masked +
               flag(masked_) * masked;
    }

  private:
    __device__ void load(const Problem& p) {
        const int word = chunk_ + lane_index();
        left_ = mine_ = mine_masked_ = masked_ = 0;
        if (word >= p.words) return;
        const Work<head_dim> work(p);
        const int first = (work.sheet * p.row_blocks + work.block) * p.words + word;
        const bool paired = Shape<head_dim>::rows > tile && work.block + 1 < p.row_blocks;
        const int second = first + (paired ? p.words : 0);
        const int own = warp_index() * Shape<head_dim>::warp_rows < tile ? first : second;
        left_ = p.active[first] | p.active[second];
        masked_ = p.partial[first] | p.partial[second];
        mine_ = p.active[own];
        mine_masked_ = p.partial[own];
    }

    int chunk_ = 0;
    uint32_t left_, mine_, mine_masked_, masked_;  // left_: active for some warp and not yet visited
};

/// Starts the copy of `count` rows of one head, beginning at `first`, into a swizzled tile. Rows from `end` on become
/// zeros.
template <int head_dim, int count, bool tail>
__device__ inline void copy_rows(uint32_t to, const __nv_bfloat16* from, int stride, int first, int end) {
    // A thread returns to the same chunk of the row after `step` rows; with 12 chunks that takes three passes.
    constexpr int chunks = head_dim / 8, step = (threads % chunks == 0 ? 1 : 3) * threads / chunks;
    static_assert(step * chunks % threads == 0 && count % step == 0);
#pragma unroll
    for (int i = 0; i < step * chunks / threads; ++i) {
        const int at = thread_index() + i * threads, row = at / chunks, column = at % chunks * 8;
#pragma unroll
        for (int r = 0; r < count; r += step) {
            const int token = first + row + r;
            copy_async(to + swizzled<head_dim>(row + r, column) * 2,
                       from + static_cast<int64_t>(tail ? min(token, end - 1) : token) * stride + column,
                       !tail || token < end);
        }
    }
}
template <int head_dim, int count>
__device__ inline void copy_rows(uint32_t to, const __nv_bfloat16* from, int stride, int first, int end) {
    if (end - first >= count)
        copy_rows<head_dim, count, false>(to, from, stride, first, end);
    else
        copy_rows<head_dim, count, true>(to, from, stride, first, end);
}

/// Byte offset in a swizzled tile at which this lane loads the fragments of the first 16 x 16 elements: row l % 16,
/// column l / 16 * 8. The four matrices are then (rows 0.., columns 0..), (8.., 0..), (0.., 8..), (8.., 8..).
template <int head_dim>
__device__ inline uint32_t fragment_offset() {
    const int lane = lane_index();
    return swizzled<head_dim>(lane % 16, lane / 16 * 8) * 2;
}
/// The same, `step` * 16 columns further right: the swizzle permutes within 64 or 32 columns.
template <int head_dim>
__device__ inline uint32_t columns_on(uint32_t offset, int step) {
    constexpr int period = head_dim % 64 == 0 ? 4 : 2;
    return (offset ^ (step % period * 32)) + step / period * (period * 32);
}
/// Bytes of `n` * 16 rows, after which the swizzle repeats.
template <int head_dim>
__device__ inline int rows_on(int n) {
    return n * 16 * Shape<head_dim>::row_bytes;
}

// Fragments C of mma.m16n8k16, [row tile][columns / 8].
template <int row_tiles>
using Scores = float[row_tiles][tile / 8][4];
template <int row_tiles, int head_dim>
using Sums = float[row_tiles][head_dim / 8][4];

/// s = Q K^T; q is the address of the warp's rows.
template <int head_dim, int row_tiles>
__device__ inline void multiply_queries(Scores<row_tiles>& s, uint32_t q, uint32_t k, uint32_t offset) {
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int n = 0; n < tile / 8; ++n)
#pragma unroll
            for (float& x : s[m][n]) x = 0;
#pragma unroll
    for (int step = 0; step < head_dim / 16; ++step) {
        const uint32_t at = columns_on<head_dim>(offset, step);
        uint32_t a[row_tiles][4];
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) load_matrices(a[m], at + (q + rows_on<head_dim>(m)));
#pragma unroll
        for (int n = 0; n < tile / 16; ++n) {
            uint32_t b[4];
            load_matrices(b, at + (k + rows_on<head_dim>(n)));
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) {
                multiply_add(s[m][2 * n], a[m], b[0], b[2]);
                multiply_add(s[m][2 * n + 1], a[m], b[1], b[3]);
            }
        }
    }
}

/// o += P V, P rounded to bf16.
template <int head_dim, int row_tiles>
__device__ inline void multiply_values(Sums<row_tiles, head_dim>& o, const Scores<row_tiles>& p, uint32_t v,
                                       uint32_t offset) {
#pragma unroll
    for (int step = 0; step < tile / 16; ++step) {
        uint32_t a[row_tiles][4];
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&c)[4] = p[m][2 * step + i / 2];
                a[m][i] = pack_bf16(c[i % 2 * 2], c[i % 2 * 2 + 1]);
            }
#pragma unroll
        for (int n = 0; n < head_dim / 16; ++n) {
            uint32_t b[4];
            load_matrices_transposed(b, columns_on<head_dim>(offset, n) + (v + rows_on<head_dim>(step)));
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) {
                multiply_add(o[m][2 * n], a[m], b[0], b[1]);
                multiply_add(o[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/// Sets hidden scores to -inf. `row` is this lane's first row. Rows before `future` may not see the tile's first
/// column, rows before future + 1 its second, and so on.
template <int row_tiles>
__device__ inline void hide(Scores<row_tiles>& s, const int4* bounds, int row, int future) {
    const int pair = lane_index() % 4 * 2;
#pragma unroll
    for (int n = 0; n < tile / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int c = n * 8 + pair + e;
            const int4 x = bounds[c];
            // begin <= i < end is i - begin < end - begin in unsigned numbers. The empty range [INT_MAX, INT_MIN)
            // becomes the single row INT_MAX, which does not exist.
            const auto lower = static_cast<uint32_t>(x.x), lower_size = static_cast<uint32_t>(x.y) - lower;
            const auto upper = static_cast<uint32_t>(x.z), upper_size = static_cast<uint32_t>(x.w) - upper;
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int i = row + m * 16 + h * 8;
                    const auto u = static_cast<uint32_t>(i);
                    const bool hidden = (u - lower < lower_size) | (u - upper < upper_size) | (i < future + c);
                    if (hidden) s[m][n][2 * h + e] = -INFINITY;
                }
        }
}

/// The online softmax of this lane's rows, in powers of two: all sums are divided by 2^max. `max` may lag behind the
/// largest score by up to `lag`, which saves most passes over the output sums (a technique of FlashAttention-4). It starts finite, so that a hidden score gives 2^(-inf - max) = 0 if a row has seen nothing.
template <int row_tiles>
struct Softmax {
    static constexpr float lag = 8;
    float max[row_tiles][2], sum[row_tiles][2];  ///< sum: over this lane's columns alone

    __device__ Softmax() {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) max[m][h] = -FLT_MAX, sum[m][h] = 0;
    }
};

// Reductions over the four lanes that share a row.
__device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(whole_warp, x, 1));
    return fmaxf(x, __shfl_xor_sync(whole_warp, x, 2));
}
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(whole_warp, x, 1);
    return x + __shfl_xor_sync(whole_warp, x, 2);
}

/// Scores become 2^(scale * score - max); updates max, sum and o.
template <int head_dim, int row_tiles>
__device__ inline void step_softmax(Scores<row_tiles>& s, Softmax<row_tiles>& softmax, Sums<row_tiles, head_dim>& o,
                                    float scale) {
    float keep[row_tiles][2];
    bool moved = false;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float peak = -INFINITY;
#pragma unroll
            for (int n = 0; n < tile / 8; ++n) peak = fmaxf(peak, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
            peak = quad_max(peak) * scale;
            const float old = softmax.max[m][h], max = peak > old + softmax.lag ? peak : old;
            keep[m][h] = exp2_fast(old - max);
            moved |= max != old;
            softmax.max[m][h] = max;
        }
    if (__any_sync(whole_warp, moved)) {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                softmax.sum[m][h] *= keep[m][h];
#pragma unroll
                for (int n = 0; n < head_dim / 8; ++n) o[m][n][2 * h] *= keep[m][h], o[m][n][2 * h + 1] *= keep[m][h];
            }
    }
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float sum = 0;
#pragma unroll
            for (int n = 0; n < tile / 8; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& x = s[m][n][2 * h + e];
                    x = exp2_fast(fmaf(x, scale, -softmax.max[m][h]));
                    sum += x;
                }
            softmax.sum[m][h] += sum;
        }
}

/// Divides by the sums and writes the warp's rows and their lse; the first `rows` of them exist. The rows pass through
/// the shared memory of the warp's queries, so that global memory is written in 16-byte chunks.
template <int head_dim, int row_tiles>
__device__ inline void write_rows(const Sums<row_tiles, head_dim>& o, const Softmax<row_tiles>& softmax, char* shared,
                                  __nv_bfloat16* out, int stride, float* lse, int rows) {
    const int lane = lane_index();
    __syncwarp();  // other lanes may still load queries
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            constexpr float ln2 = 0.693147180559945309f;
            const int row = m * 16 + h * 8 + lane / 4;
            const float sum = quad_sum(softmax.sum[m][h]), factor = sum == 0 ? 0 : 1 / sum;
            if (lane % 4 == 0 && row < rows) lse[row] = sum == 0 ? -INFINITY : fmaf(softmax.max[m][h], ln2, logf(sum));
#pragma unroll
            for (int n = 0; n < head_dim / 8; ++n)
                *reinterpret_cast<uint32_t*>(shared + swizzled<head_dim>(row, n * 8 + lane % 4 * 2) * 2) =
                    pack_bf16(o[m][n][2 * h] * factor, o[m][n][2 * h + 1] * factor);
        }
    __syncwarp();
    constexpr int chunks = head_dim / 8;
#pragma unroll
    for (int i = 0; i < row_tiles * 16 * chunks / 32; ++i) {
        const int row = (i * 32 + lane) / chunks, column = (i * 32 + lane) % chunks * 8;
        if (row < rows)
            *reinterpret_cast<uint4*>(out + static_cast<int64_t>(row) * stride + column) =
                *reinterpret_cast<const uint4*>(shared + swizzled<head_dim>(row, column) * 2);
    }
}

}  // namespace colonnade::portable::forward
