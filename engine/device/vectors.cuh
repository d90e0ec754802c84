#pragma once
// For kernels: eight bf16 that are loaded and stored as one 16-byte access, and read as floats.

#include <cuda_bf16.h>

#include <cstdint>

#include "engine/device/tensor.h"

namespace colonnade {

constexpr int pack_size = 8;  ///< bf16 per access

struct __align__(16) Pack {
    uint32_t words[4];

    /// i must be known at compile time (an unrolled loop), so that the pack stays in registers.
    __device__ float operator[](int i) const {
        const uint32_t word = words[i / 2];
        return __uint_as_float(i % 2 ? word & 0xffff0000u : word << 16);
    }
};

__device__ inline Pack zero_pack() {
    return {{0, 0, 0, 0}};
}

/// Rounds to nearest even.
__device__ inline Pack pack_of(const float (&values)[pack_size]) {
    Pack pack;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
        pack.words[i] = static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16 | __bfloat16_as_ushort(pair.x);
    }
    return pack;
}

// A kernel is compiled twice: for packs that are aligned and complete, and for all others. In the second case `left`,
// the number of elements to the end of the row, says how many of the eight exist; the missing ones read as 0.

template <bool aligned>
__device__ Pack load_pack(const __nv_bfloat16* from, int left) {
    if constexpr (aligned) {
        return *reinterpret_cast<const Pack*>(from);
    } else {
        Pack pack = zero_pack();
#pragma unroll
        for (int i = 0; i < pack_size; ++i)
            if (i < left)
                pack.words[i / 2] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(from)[i]) << (i % 2 * 16);
        return pack;
    }
}

template <bool aligned>
__device__ void store_pack(__nv_bfloat16* to, const Pack& pack, int left) {
    if constexpr (aligned) {
        *reinterpret_cast<Pack*>(to) = pack;
    } else {
#pragma unroll
        for (int i = 0; i < pack_size; ++i)
            if (i < left) reinterpret_cast<uint16_t*>(to)[i] = static_cast<uint16_t>(pack.words[i / 2] >> (i % 2 * 16));
    }
}

/// For data that no kernel reads again soon: the caches evict it first.
template <bool aligned>
__device__ Pack load_pack_once(const __nv_bfloat16* from, int left) {
    if constexpr (aligned) {
        const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(from));
        return {{bits.x, bits.y, bits.z, bits.w}};
    } else {
        return load_pack<false>(from, left);
    }
}

template <bool aligned>
__device__ void store_pack_once(__nv_bfloat16* to, const Pack& pack, int left) {
    if constexpr (aligned)
        __stcs(reinterpret_cast<uint4*>(to), make_uint4(pack.words[0], pack.words[1], pack.words[2], pack.words[3]));
    else
        store_pack<false>(to, pack, left);
}

/// True if all packs of the tensor's rows are aligned and complete, or if the tensor is empty.
inline bool has_packs(const Tensor& t) {
    if (t.empty()) return true;
    bool held = reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && t.size(t.rank - 1) % pack_size == 0;
    for (int d = 0; d + 1 < t.rank; ++d) held = held && t.stride[static_cast<size_t>(d)] % pack_size == 0;
    return held;
}

}  // namespace colonnade
