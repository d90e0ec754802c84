#pragma once
// Shared by the kernels of the portable backward: arguments, the walk over the active tiles of a plan, copies of tiles
// between global memory, shared memory and fragments, and the element mask. Not for use outside attention/portable.

#include "attention/portable/mma.cuh"
#include "attention/portable/once_per_device.cuh"
#include "engine/device/gpu.cuh"

namespace colonnade::portable {

/// A [batch, tokens, heads, head_dim] tensor: strides in elements; the last stride is 1.
struct View {
    __nv_bfloat16* data;
    int64_t batch, token, head;

    __device__ __nv_bfloat16* row(int b, int token_index, int h) const {
        return data + b * batch + token_index * token + h * head;
    }
};

/// One direction of a GpuTilePlan: for every block of 64 rows, the column blocks as bits; or the other way round.
struct TileLists {
    const int32_t *active, *partial, *order;
    int blocks, words, block_pairs;  ///< blocks and pairs of blocks per sheet, words per block
    int inner;                       ///< rows or columns that the bits stand for
};

struct BackwardProblem {
    View q, k, v, out, dout, dq, dk, dv;
    const float* lse;
    /// In scratch, [batch, heads, padded_rows] each. lse2 = lse * log2(e), or +inf for rows that see nothing or do not
    /// exist, so that P = exp2(s - inf) = 0.
    float *lse2, *delta;
    /// In scratch, [batch, heads, padded_rows / 16, head_dim / 8, 32, 4]: dQ / scale as the accumulators of 16 x 8
    /// tiles, lane by lane.
    float* dq_sum;
    const int4* bounds;  ///< [sheets, padded_columns]
    TileLists by_row, by_column;
    int64_t padded_rows, padded_columns;  ///< multiples of 128
    int batch, rows, columns, heads, kv_heads, mask_heads, head_dim;
    int group, heads_per_mask;  ///< query heads per kv head, per mask head
    bool causal;
    float scale, scale_log2;  ///< scale_log2 = scale * log2(e)
    const int* positions;     ///< GpuTilePlan::positions; null if the mask has no window of positions
    int window;               ///< of the positions

    __device__ int sheet(int b, int h) const { return b * mask_heads + h / heads_per_mask; }
    __device__ const int* positions_of(int b) const { return positions + b * padded_columns; }
    __device__ int64_t statistics(int b, int h, int row) const { return (int64_t{b} * heads + h) * padded_rows + row; }
};

/// lse2 and delta of all rows, and dq_sum = 0 if dQ is summed there (backward_dq.cu).
void launch_row_statistics(cudaStream_t stream, const BackwardProblem& problem, bool with_dq_sum);
/// dQ by query blocks: computes S and dP again, without atomics (backward_dq.cu).
void launch_dq_by_rows(cudaStream_t stream, const BackwardProblem& problem, int shared_memory);
/// dQ from dq_sum, rounded to bf16 (backward_dq.cu).
void launch_dq_from_sums(cudaStream_t stream, const BackwardProblem& problem);

/// Allows a kernel `bytes` of dynamic shared memory on the current device, for once_per_device().
template <typename Kernel>
int allow_shared_memory(Kernel kernel, int bytes) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "flashmask_backward");
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                    static_cast<int>(cudaSharedmemCarveoutMaxShared)),
               "flashmask_backward");
    return 0;
}

/// Returns x, but hides from the compiler that x is the same in every round of a loop. The compiler then computes
/// values that depend on x again instead of keeping them in registers, which the accumulators need.
template <typename T>
__device__ __forceinline__ T anew(T x) {
    asm volatile("" : "+r"(x));
    return x;
}

// --- The walk --------------------------------------------------------------------------------------------------------

/// One tile of work: `inner` rows (or columns) from `first`, of one query head.
struct Step {
    int head = -1, first = 0;  ///< head -1: no step

    __device__ explicit operator bool() const { return head >= 0; }
};

/// All steps of an item of `blocks` (1 or 2) blocks of 64 and one or more query heads, in ascending order. Every warp
/// walks on its own, and all find the same steps. A lane holds one word of bits: one load covers 65,536 rows.
template <int blocks, int inner>
class Walk {
  public:
    /// Walks from query head `head` to the next multiple of `heads`; `first` is the item's first row or column.
    __device__ Walk(const BackwardProblem& p, const TileLists& lists, int batch, int first, int head, const int& heads)
        : p_(p), lists_(lists), heads_(heads), batch_(batch), first_(first) {
        open(head);
        advance(0);
    }

    /// The current step; none after the last one.
    __device__ const Step& step() const { return step_; }

    /// Goes to the next step.
    __device__ void next() {
        if constexpr (inner < 64) {
            if (step_.first % 64 + inner < 64 && step_.first + inner < lists_.inner) {
                step_.first += inner;
                return;
            }
        }
        advance(step_.first >> 11 & ~31);
    }

    /// Returns to lane l the word with the step's bit for the item's block l % 2: active (l < 2) or partial (l = 2, 3).
    __device__ unsigned tile_words() const {
        const unsigned lane = anew(threadIdx.x) % 32;
        const int word = step_.first >> 11;
        if (lane >= 4 || (lane % 2 == 1 && !second())) return 0;
        return __ldg((lane < 2 ? lists_.active : lists_.partial) + list_ + (lane % 2 == 1 ? lists_.words : 0) + word);
    }
    /// From these words: bit i if the tile of the i-th block is active, bit 2 + i if it is partial.
    __device__ unsigned tiles(unsigned words) const { return __ballot_sync(~0u, words >> (step_.first >> 6 & 31) & 1); }

  private:
    __device__ bool second() const { return blocks == 2 && (anew(first_) >> 6) + 1 < lists_.blocks; }
    __device__ void open(int head) {
        step_.head = head;
        list_ = (static_cast<uint32_t>(p_.sheet(batch_, head)) * lists_.blocks + (anew(first_) >> 6)) * lists_.words;
        load(0);
    }
    __device__ void load(int word) {
        word += static_cast<int>(anew(threadIdx.x) % 32);
        remaining_ = 0;
        if (word >= lists_.words) return;
        remaining_ = __ldg(lists_.active + list_ + word);
        if (second()) remaining_ |= __ldg(lists_.active + list_ + lists_.words + word);
    }
    /// Goes to the first remaining bit; `word` is the first of the 32 words that the lanes hold.
    __device__ void advance(int word) {
        unsigned lanes;
        while ((lanes = __ballot_sync(~0u, remaining_ != 0)) == 0) {
            word += 32;
            if (word < lists_.words) {
                load(word);
                continue;
            }
            word = 0;
            if ((step_.head + 1) % heads_ == 0) {
                step_.head = -1;
                return;
            }
            open(step_.head + 1);
        }
        const unsigned source = __ffs(lanes) - 1;
        const int bit = __ffs(__shfl_sync(~0u, remaining_, source)) - 1;
        if (anew(threadIdx.x) % 32 == source) remaining_ &= remaining_ - 1;
        step_.first = ((word + static_cast<int>(source)) * 32 + bit) * 64;
    }

    const BackwardProblem& p_;
    const TileLists& lists_;
    const int& heads_;
    int batch_, first_;
    Step step_;
    uint32_t list_;       ///< index of the first word for the step's head and the first block; 2^32 words are 16 GB
    unsigned remaining_;  ///< this lane's word without the bits already visited
};

// --- The element mask ------------------------------------------------------------------------------------------------

/// The rows that may not see one key, tested by unsigned differences. An empty range [INT_MAX, INT_MIN) becomes the one
/// row INT_MAX, which no mask has.
class HiddenRows {
  public:
    __device__ HiddenRows(const BackwardProblem& p, int sheet, int key) {
        const int4 x = __ldg(p.bounds + sheet * p.padded_columns + key);
        lts_ = x.x, uts_ = x.z;
        lower_ = static_cast<uint32_t>(x.y) - lts_, upper_ = static_cast<uint32_t>(x.w) - uts_;
        future_ = p.causal ? key - (p.columns - p.rows) : -1;
    }
    __device__ bool contain(int row) const {
        const auto i = static_cast<uint32_t>(row);
        return i - lts_ < lower_ || i - uts_ < upper_ || row < future_;
    }

  private:
    uint32_t lts_, lower_, uts_, upper_;
    int32_t future_;
};

// --- Shared tiles ----------------------------------------------------------------------------------------------------

template <int width>
__host__ __device__ constexpr int rows_bytes(int rows) {
    return rows * width * 2;
}

__device__ inline void store_shared(uint32_t address, uint32_t value) {
    asm volatile("st.shared.b32 [%0], %1;\n" ::"r"(address), "r"(value) : "memory");
}
__device__ inline float2 load_shared_pair(uint32_t address) {
    float2 r;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];\n" : "=f"(r.x), "=f"(r.y) : "r"(address) : "memory");
    return r;
}
__device__ inline uint4 load_shared_chunk(uint32_t address) {
    uint4 r;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "r"(address)
                 : "memory");
    return r;
}

/// Starts the copy of a tile of `rows` tokens. The first `valid` of them exist, the others become zeros. `from` must
/// exist.
template <int rows, int width, int threads>
__device__ __forceinline__ void copy_tile(uint32_t tile, const __nv_bfloat16* from, int64_t stride, int valid,
                                          unsigned thread) {
    constexpr int chunks = width / 8;
    static_assert(rows * chunks % threads == 0);
    if constexpr (threads % chunks == 0) {
        // A thread keeps its column. Multiplying by the stride for every row would take more registers than there are.
        constexpr int down = threads / chunks;
        int row = static_cast<int>(thread / chunks);
        const int column = static_cast<int>(thread % chunks) * 8;
        const __nv_bfloat16* at = from + row * stride + column;
#pragma unroll 4
        for (int i = 0; i < rows / down; ++i, row += down, at += down * stride)
            copy_async(tile + 2 * swizzled<width>(row, column), row < valid ? at : from, row < valid);
    } else {
#pragma unroll
        for (int i = 0; i < rows * chunks / threads; ++i) {
            const unsigned at = i * threads + thread;
            const int row = static_cast<int>(at / chunks), column = static_cast<int>(at % chunks) * 8;
            const bool held = row < valid;
            copy_async(tile + 2 * swizzled<width>(row, column), from + (held ? row * stride : 0) + column, held);
        }
    }
}

/// Writes the first `valid` rows of a tile.
template <int rows, int width, int threads>
__device__ __forceinline__ void write_tile(__nv_bfloat16* to, int64_t stride, int valid, uint32_t tile,
                                           unsigned thread) {
    constexpr int chunks = width / 8;
#pragma unroll
    for (int i = 0; i < rows * chunks / threads; ++i) {
        const unsigned at = i * threads + thread;
        const int row = static_cast<int>(at / chunks), column = static_cast<int>(at % chunks) * 8;
        if (row < valid)
            *reinterpret_cast<uint4*>(to + row * stride + column) =
                load_shared_chunk(tile + 2 * swizzled<width>(row, column));
    }
}

/// Byte offset that this lane passes to ldmatrix for the 16 x 16 elements at the corner of a tile: matrices 0 and 1 one
/// below the other, 2 and 3 to their right. For an A operand in storage order, or a B operand [k][n] read transposed.
template <int width>
__device__ __forceinline__ uint32_t lane_down(unsigned lane) {
    return 2 * swizzled<width>(lane % 16, lane / 16 * 8);
}
/// The same with 0 and 1 side by side: for a B operand stored as [n][k], or an A operand stored as [k][m] read
/// transposed.
template <int width>
__device__ __forceinline__ uint32_t lane_across(unsigned lane) {
    return 2 * swizzled<width>(lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8);
}
/// The address 16 * `pair` columns further right, if in every bit either pair or the address's own column is 0: an XOR
/// within a line of 64 (or 32) columns, plus whole lines. 16 rows further down are a plain sum.
template <int width>
__device__ __forceinline__ uint32_t pair_at(uint32_t address, int pair) {
    constexpr int per_line = width % 64 == 0 ? 4 : 2;
    return (address ^ (pair % per_line << 5)) + pair / per_line * (per_line * 32);
}

// --- Products of a warp ----------------------------------------------------------------------------------------------

template <int m, int n>
__device__ __forceinline__ void clear(float (&c)[m][n][4]) {
#pragma unroll
    for (int i = 0; i < m; ++i)
#pragma unroll
        for (int j = 0; j < n; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) c[i][j][e] = 0;
}

/// c += A B^T over all `width` columns, with addresses a from lane_down and b from lane_across. The tiles are `a_tile`
/// and `b_tile` bytes after them: constants that are added last become part of the instruction.
template <int width, int m, int n>
__device__ __forceinline__ void multiply_rows(float (&c)[m][n][4], uint32_t a, int a_tile, uint32_t b, int b_tile) {
#pragma unroll
    for (int k = 0; k < width / 16; ++k) {
        uint32_t fa[m][4];
#pragma unroll
        for (int i = 0; i < m; ++i) load_matrices(fa[i], pair_at<width>(a, k) + (a_tile + rows_bytes<width>(16 * i)));
#pragma unroll
        for (int j = 0; j < n; j += 2) {
            uint32_t fb[4];
            load_matrices(fb, pair_at<width>(b, k) + (b_tile + rows_bytes<width>(8 * j)));
#pragma unroll
            for (int i = 0; i < m; ++i) {
                multiply_add(c[i][j], fa[i], fb[0], fb[1]);
                multiply_add(c[i][j + 1], fa[i], fb[2], fb[3]);
            }
        }
    }
}

/// c += A B for 16 rows of B and every `apart`-th group of 16 of its columns; b is the address of the first from
/// lane_down, and the tile is b_tile bytes after it.
template <int width, int apart, int m, int n>
__device__ __forceinline__ void multiply_columns(float (&c)[m][n][4], const uint32_t (&a)[m][4], uint32_t b,
                                                 int b_tile) {
#pragma unroll
    for (int j = 0; j < n; j += 2) {
        uint32_t fb[4];
        load_matrices_transposed(fb, pair_at<width>(b, j / 2 * apart) + b_tile);
#pragma unroll
        for (int i = 0; i < m; ++i) {
            multiply_add(c[i][j], a[i], fb[0], fb[1]);
            multiply_add(c[i][j + 1], a[i], fb[2], fb[3]);
        }
    }
}

/// Columns [16 s, 16 s + 16) of accumulators as an A operand.
template <int m, int n>
__device__ __forceinline__ void to_operand(uint32_t (&a)[m][4], const float (&c)[m][n][4], int s) {
#pragma unroll
    for (int i = 0; i < m; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            a[i][2 * half] = pack_bf16(c[i][2 * s + half][0], c[i][2 * s + half][1]);
            a[i][2 * half + 1] = pack_bf16(c[i][2 * s + half][2], c[i][2 * s + half][3]);
        }
}

/// Writes accumulators of every `apart`-th group of 16 columns, starting at group `part` and multiplied by `factor`, to
/// a tile; `tile` is the address of the warp's first row.
template <int width, int apart, int m, int n>
__device__ __forceinline__ void stage_tile(uint32_t tile, const float (&c)[m][n][4], int part, float factor,
                                           unsigned lane) {
    const uint32_t to = tile + 2 * swizzled<width>(lane / 4, 0) + lane % 4 * 4;
#pragma unroll
    for (int i = 0; i < m; ++i)
#pragma unroll
        for (int j = 0; j < n; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                store_shared(pair_at<width>(to ^ (part << 5) ^ (j % 2 << 4), j / 2 * apart) +
                                 rows_bytes<width>(16 * i + 8 * half),
                             pack_bf16(c[i][j][2 * half] * factor, c[i][j][2 * half + 1] * factor));
}

}  // namespace colonnade::portable
