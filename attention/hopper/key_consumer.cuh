#pragma once
// The computing side of Hopper's backward: scores of 64 keys x 64 query rows, with the keys as the rows of the
// products, and the gradients of keys on their way out.

#include <cmath>

#include "attention/hopper/key_feed.cuh"

namespace colonnade::hopper {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// d = A B^T of 64 rows each over head_dim columns; slabs of A and B are a_slab and b_slab bytes apart.
template <int head_dim>
__device__ __forceinline__ void multiply_rows(float (&d)[32], uint32_t a, int a_slab, uint32_t b, int b_slab) {
    const uint64_t da = k_major(a), db = k_major(b);
#pragma unroll
    for (int step = 0; step < head_dim / 16; ++step)
        multiply_shared<false, false>(d, advance(da, step / 4 * a_slab + step % 4 * 32),
                                      advance(db, step / 4 * b_slab + step % 4 * 32), step > 0);
}

/// d += A B with A [64 keys, 64 rows] in registers and B 64 rows of Q or dO.
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

/// Bits of the thread's hidden scores. `key` is the first of its two keys, the other one is key + 8.
__device__ __forceinline__ uint32_t hidden_scores(const BackwardProblem& p, const Slot& slot, int key, int pair) {
    const int4* bounds = p.plan.bounds + static_cast<int64_t>(slot.sheet) * p.plan.padded_columns + key;
    const int causal_end = p.causal ? key - (p.columns - p.rows) : 0;
    const int4 x = __ldg(bounds), y = __ldg(bounds + 8);
    return hidden_rows(x.x, x.y, x.z, x.w, causal_end, slot.first_row, pair) |
           hidden_rows(y.x, y.y, y.z, y.w, p.causal ? causal_end + 8 : 0, slot.first_row, pair) << 2;
}

/// Bits of the thread's scores whose rows are past the windows of its keys, in a mask with positions.
__device__ __forceinline__ uint32_t scores_past_window(const BackwardProblem& p, int batch, int first_row, int key,
                                                       int pair) {
    const int* positions = p.positions + static_cast<int64_t>(batch) * p.plan.padded_columns;
    const int limits[2] = {__ldg(positions + key) + p.window, __ldg(positions + key + 8) + p.window};
    return rows_past_window(positions + first_row, pair, limits);
}

/// P = exp(scale S - lse), 0 for hidden scores; `partial` is the same for all threads. `lse` is the shared address of
/// the lse of the thread's first row; `scale` includes log2(e).
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

/// Stores sixteen rows of each warp, 64 columns held rounded in registers, to a slab. `own_row` = 16 warp + lane % 16.
__device__ __forceinline__ void store_rows(uint32_t slab, const uint32_t* r, int own_row, int lane) {
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        const uint32_t chunk = static_cast<uint32_t>((j + lane / 16) ^ (own_row % 8));
        store_matrices(slab + own_row * 128 + chunk * 16, r[2 * j], r[2 * j + 1], r[2 * j + 2], r[2 * j + 3]);
    }
}

/// A warpgroup that computes.
template <typename Layout>
struct KeyConsumer {
    using L = Layout;
    const KeyCta<L>& cta;
    const int warpgroup, warp, lane;

    __device__ KeyConsumer(const KeyCta<L>& of, int group, int of_group)
        : cta(of), warpgroup(group), warp(of_group), lane(static_cast<int>(threadIdx.x % 32)) {}

    __device__ void release(uint32_t barrier) const {
        arrive_as_warp(cta.barrier(barrier), static_cast<unsigned>(lane));
    }
    /// Address of this warpgroup's 64 keys in the first slab of K or V.
    __device__ uint32_t own_keys(int tile) const { return cta.address + tile + warpgroup * 64 * 128; }

    /// Bits of the thread's hidden scores with a block of rows, whose tile is partial.
    __device__ uint32_t hidden_of(const Slot& rows, const BackwardItem& item) const {
        const int key = item.block_pair * item_columns + 64 * warpgroup + 16 * warp + lane / 4;
        const uint32_t hidden = hidden_scores(cta.problem, rows, key, 2 * (lane % 4));
        if (!cta.problem.positions) return hidden;
        return hidden | scores_past_window(cta.problem, item.batch, rows.first_row, key, 2 * (lane % 4));
    }

    // --- Pieces of an item: their dK and dV are added in the order of the pieces, each warpgroup's on its own. ---

    __device__ bool first_thread() const { return warp == 0 && lane == 0; }
    __device__ uint32_t* piece_ticket(const Piece& piece) const {
        return cta.problem.scratch.piece_tickets + 2 * piece.sums + warpgroup;
    }
    /// Waits until the pieces before have added theirs. Returns false if the item is whole. The buffers of the keys go
    /// back first, unless the last piece is to write its gradients there.
    __device__ bool take_turn(const Piece& piece) const {
        if (piece.entry < 0) return false;
        sync_named(own_named<2> + warpgroup, 128);
        if (first_thread()) {
            if (!piece.last) arrive(cta.barrier(L::keys_empty));
            wait_ticket(piece_ticket(piece), piece.turn);
        }
        __syncwarp();
        sync_named(own_named<2> + warpgroup, 128);
        return true;
    }
    /// Adds the sum of the pieces before to a gradient, and leaves the new one for the next piece. `part` is the
    /// gradient's number among those of the kernel.
    template <int n>
    __device__ __forceinline__ void add_pieces(float (&sum)[n], const Piece& piece, int part) const {
        constexpr int parts = L::has_sums ? 2 : 1;
        auto* at = reinterpret_cast<float4*>(cta.problem.scratch.piece_sums) +
                   ((2 * piece.sums + warpgroup) * parts + part) * (n / 4 * 128) + threadIdx.x % 128;
        if (piece.turn > 0) {
#pragma unroll
            for (int i = 0; i < n / 4; ++i) {
                const float4 before = __ldcg(at + 128 * i);  // L1 may have an older one
                sum[4 * i] += before.x, sum[4 * i + 1] += before.y;
                sum[4 * i + 2] += before.z, sum[4 * i + 3] += before.w;
            }
        }
        if (piece.last) return;
#pragma unroll
        for (int i = 0; i < n / 4; ++i)
            __stcg(at + 128 * i, make_float4(sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]));
    }
    __device__ void pass_turn(const Piece& piece) const {
        sync_named(own_named<2> + warpgroup, 128);
        if (first_thread() && !piece.last) pass_ticket(piece_ticket(piece));
        __syncwarp();
    }

    /// Puts one slab of a gradient into the buffer of the warpgroup's keys or values.
    __device__ __forceinline__ void put(const float* sum, float scale, int tile, int slab) const {
        uint32_t r[16];
#pragma unroll
        for (int i = 0; i < 16; ++i)
            r[i] = pack_bf16(sum[32 * slab + 2 * i] * scale, sum[32 * slab + 2 * i + 1] * scale);
        const int own = lane_anew();
        store_rows(own_keys(tile) + slab * L::key_slab, r, 16 * warp + own % 16, own);
    }

    /// One thread sends off a gradient that all threads of the warpgroup have put.
    __device__ __forceinline__ void store(const CUtensorMap& to, int tile, const BackwardItem& item) const {
        const int column = item.block_pair * item_columns + warpgroup * 64;
        if (column >= cta.problem.columns) return;
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab)
            store_slab(&to, own_keys(tile) + slab * L::key_slab, 64 * slab, item.kv_head, column, item.batch);
    }
    /// The same thread returns the buffers of the keys once all has been read.
    __device__ __forceinline__ void return_keys() const {
        commit_stores();
        wait_stores_read();
        arrive(cta.barrier(L::keys_empty));
    }
};

#endif

}  // namespace colonnade::hopper
