#pragma once
// What kernels that keep query rows do with a warpgroup's scores beside their own arithmetic: hide elements, write outputs.

#include <cmath>

#include "attention/hopper/mask_words.h"
#include "attention/hopper/work.cuh"
#include "engine/device/hopper/ptx.cuh"

namespace colonnade::hopper {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// What is the same in all lanes, for the compiler to know.
__device__ __forceinline__ int uniform(int x) {
    return __shfl_sync(whole_warp, x, 0);
}

/// The thread's bits of its warpgroup's mask words, for its first row and the one 8 below: mask_score() tells whose.
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

/// Hidden scores become -inf.
template <int count>
__device__ __forceinline__ void hide_scores(float (&s)[32 * count], const uint32_t (&hidden)[count]) {
    if (!__any_sync(whole_warp, (hidden[0] | hidden[count - 1]) != 0)) return;
#pragma unroll
    for (int i = 0; i < count; ++i)
#pragma unroll
        for (int bit = 0; bit < 32; ++bit)
            if (hidden[i] & 1u << bit) s[mask_score<64 * count>(i, bit)] = -INFINITY;
}

/// What the warpgroup has summed for its 64 rows, times a factor for each of a thread's two rows, rounded to bf16, to slabs
/// `slab_bytes` apart.
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

#endif

}  // namespace colonnade::hopper
