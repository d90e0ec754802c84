#pragma once
// The computing side of the Hopper kernels that keep query rows, apart from their arithmetic: the wait for tiles,
// turns, the element mask, and results on their way out.

#include <cmath>

#include "attention/hopper/mask_words.h"
#include "attention/hopper/row_feed.cuh"

namespace colonnade::hopper {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Reads the bits of this thread from the mask words of its warpgroup. mask_score() gives the score of each bit.
template <int count>
__device__ __forceinline__ void read_mask(uint32_t (&hidden)[count], const uint32_t* words, int warp) {
    const int lane = lane_anew();
#pragma unroll
    for (int i = 0; i < count; ++i) {
        hidden[i] = mask_begin<64 * count>(words, warp, i, lane);
#pragma unroll
        for (int n = 0; n < mask_steps; ++n) {
            const MaskStep step(n);
            hidden[i] = mask_step(hidden[i], __shfl_xor_sync(whole_warp, hidden[i], step.lanes), step, lane);
        }
    }
}

/// Sets hidden scores to -inf.
template <int count>
__device__ __forceinline__ void hide_scores(float (&s)[32 * count], const uint32_t (&hidden)[count]) {
    if (!__any_sync(whole_warp, (hidden[0] | hidden[count - 1]) != 0)) return;
#pragma unroll
    for (int i = 0; i < count; ++i)
#pragma unroll
        for (int bit = 0; bit < 32; ++bit)
            if (hidden[i] & 1u << bit) s[mask_score<64 * count>(i, bit)] = -INFINITY;
}

/// Writes the sums of a warpgroup's 64 rows, scaled by one factor for each of a thread's two rows and rounded to bf16,
/// to slabs that are `slab_bytes` apart.
template <int outputs>
__device__ __forceinline__ void write_outputs(const float (&o)[outputs], const float (&factor)[2], uint32_t to_rows,
                                              int slab_bytes, int warp, int lane) {
    const int row = 16 * warp + lane % 16;
    const uint32_t to = to_rows + row * 128;
#pragma unroll
    for (int j = 0; j < outputs / 4; j += 2) {
        const uint32_t r0 = pack_bf16(o[4 * j] * factor[0], o[4 * j + 1] * factor[0]),
                       r1 = pack_bf16(o[4 * j + 2] * factor[1], o[4 * j + 3] * factor[1]),
                       r2 = pack_bf16(o[4 * j + 4] * factor[0], o[4 * j + 5] * factor[0]),
                       r3 = pack_bf16(o[4 * j + 6] * factor[1], o[4 * j + 7] * factor[1]);
        const uint32_t chunk = static_cast<uint32_t>((j % 8 + lane / 16) ^ (row % 8));
        store_matrices(to + j / 8 * slab_bytes + chunk * 16, r0, r1, r2, r3);
    }
}

/// A warpgroup that computes. Tiles are numbered over all items of the CTA; tile t is in stage t % stages.
template <typename Layout>
struct RowConsumer {
    using L = Layout;
    const RowCta<L>& cta;
    const int warpgroup, warp;
    const Turns<L::warpgroups> turns;

    __device__ explicit RowConsumer(const RowCta<L>& of)
        : cta(of),
          warpgroup(uniform(static_cast<int>(threadIdx.x / 128)) - 1),
          warp(uniform(static_cast<int>(threadIdx.x / 32 % 4))),
          turns(warpgroup) {}

    /// Waits for the operands of item n and returns the address of the warpgroup's own rows of Q.
    __device__ __forceinline__ uint32_t wait_queries(uint32_t n) const {
        wait(cta.barrier(L::q_full + n % L::q_places), n / L::q_places & 1);
        return cta.queries(n) + warpgroup * 64 * 128;
    }
    __device__ __forceinline__ uint32_t keys(uint32_t t) const { return cta.keys(t % L::stages); }
    __device__ __forceinline__ uint32_t values(uint32_t t) const { return cta.values(t % L::v_stages); }
    /// Returns the TileMask of the tile.
    __device__ __forceinline__ int wait_keys(uint32_t t) const {
        wait(cta.barrier(L::k_full + t % L::stages), t / L::stages & 1);
        return uniform(*cta.mask(t % L::stages)) >> 2 * warpgroup & 3;
    }
    __device__ __forceinline__ void wait_values(uint32_t t) const {
        wait(cta.barrier(L::v_full + t % L::v_stages), t / L::v_stages & 1);
    }
    __device__ __forceinline__ void release_keys(uint32_t t) const {
        release(L::k_empty + static_cast<int>(t % L::stages));
    }
    __device__ __forceinline__ void release_values(uint32_t t) const {
        release(L::v_empty + static_cast<int>(t % L::v_stages));
    }
    /// Skips a closed tile: passes the turn and frees the tile's stages.
    __device__ __forceinline__ void skip_tile(uint32_t t) const {
        turns.pass();
        release_keys(t);
        wait_values(t);
        release_values(t);
    }
    /// Bits of the thread's hidden scores, see read_mask().
    template <int count>
    __device__ __forceinline__ void read_hidden(uint32_t (&hidden)[count], uint32_t t, int mask) const {
        for (uint32_t& x : hidden) x = 0;
        if (mask == by_words) read_mask(hidden, cta.words(t % L::stages, warpgroup), warp);
    }
    /// Sends the results of item n on their way: write_outputs() into the warpgroup's own rows of Q, which nobody reads
    /// any more.
    template <int outputs>
    __device__ __forceinline__ void send(const float (&o)[outputs], const float (&factor)[2], uint32_t own_rows,
                                         uint32_t n) const {
        sync_named(own_named<L::warpgroups> + warpgroup, 128);
        write_outputs(o, factor, own_rows, L::q_slab_bytes, warp, lane_anew());
        fence_async();
        release(L::out_full + static_cast<int>(n % L::q_places) * L::warpgroups + warpgroup);
    }

  private:
    __device__ __forceinline__ void release(int empty) const { arrive_as_warp(cta.barrier(empty), threadIdx.x % 32); }
};

#endif

}  // namespace colonnade::hopper
