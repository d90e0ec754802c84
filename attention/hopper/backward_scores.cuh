#pragma once
// What a warpgroup of Hopper's backward does with 64 keys x 64 query rows, the keys as the rows of its products.

#include <cmath>

#include "attention/hopper/backward_feed.cuh"

namespace colonnade::hopper {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// d = A B^T over head_dim columns, of 64 rows each; the slabs of A and B lie a_slab and b_slab bytes apart.
template <int head_dim>
__device__ __forceinline__ void multiply_rows(float (&d)[32], uint32_t a, int a_slab, uint32_t b, int b_slab) {
    const uint64_t da = k_major(a), db = k_major(b);
#pragma unroll
    for (int step = 0; step < head_dim / 16; ++step)
        multiply_shared<false, false>(d, advance(da, step / 4 * a_slab + step % 4 * 32),
                                      advance(db, step / 4 * b_slab + step % 4 * 32), step > 0);
}

/// d += A B, A [64 keys, 64 rows] of registers, B 64 rows of Q or dO.
template <int head_dim>
__device__ __forceinline__ void multiply_columns(float (&d)[head_dim / 2], const uint32_t (&a)[16], uint32_t b) {
    const uint64_t db = mn_major(b, block_rows * 128);
#pragma unroll
    for (int step = 0; step < 4; ++step) multiply_registers(d, a + 4 * step, advance(db, 2048 * step));
}

__device__ __forceinline__ void pack(uint32_t (&p)[16], const float (&s)[32]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

/// Which of the thread's scores are hidden, bit by bit. `key` is its first, the other is 8 on.
__device__ __forceinline__ uint32_t hidden_scores(const BackwardProblem& p, const Slot& slot, int key, int pair) {
    const int4* bounds = p.bounds + static_cast<int64_t>(slot.slice) * p.padded_columns + key;
    const int causal_end = p.causal ? key - (p.columns - p.rows) : 0;
    const int4 x = __ldg(bounds), y = __ldg(bounds + 8);
    return hidden_rows(x.x, x.y, x.z, x.w, causal_end, slot.first_row, pair) |
           hidden_rows(y.x, y.y, y.z, y.w, p.causal ? causal_end + 8 : 0, slot.first_row, pair) << 2;
}

/// P = exp(scale S - lse), 0 where hidden; `partial` is the same for all threads. `lse`: shared address of that of the
/// thread's first row; `scale`: times log2(e).
__device__ __forceinline__ void to_probabilities(float (&s)[32], bool partial, uint32_t hidden, uint32_t lse,
                                                 float scale) {
    if (partial) {
#pragma unroll
        for (int i = 0; i < 32; ++i)
            if (hidden >> i & 1) s[i] = -INFINITY;
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const float2 x = load_shared_pair(lse + 32 * j);
#pragma unroll
        for (int i = 0; i < 4; ++i) s[4 * j + i] = exp2_fast(fmaf(s[4 * j + i], scale, i % 2 ? -x.y : -x.x));
    }
}

/// dS / scale = P (dP - delta)
__device__ __forceinline__ void to_score_gradients(float (&dp)[32], const float (&p)[32], uint32_t delta) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const float2 x = load_shared_pair(delta + 32 * j);
#pragma unroll
        for (int i = 0; i < 4; ++i) dp[4 * j + i] = p[4 * j + i] * (dp[4 * j + i] - (i % 2 ? x.y : x.x));
    }
}

/// Sixteen rows of each warp to a slab, 64 columns that the thread holds rounded. `own_row` = 16 warp + lane % 16.
__device__ __forceinline__ void store_rows(uint32_t slab, const uint32_t* r, int own_row, int lane) {
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        const uint32_t chunk = static_cast<uint32_t>((j + lane / 16) ^ (own_row % 8));
        store_matrices(slab + own_row * 128 + chunk * 16, r[2 * j], r[2 * j + 1], r[2 * j + 2], r[2 * j + 3]);
    }
}

#endif

}  // namespace colonnade::hopper
