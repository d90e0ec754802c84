#pragma once
// engine/device/philox.h for kernels: the same counter and key give the same bits.

#include <cuda_runtime.h>

#include <cstdint>

namespace colonnade {

/// One block of four 32-bit random words. If all threads have the same key, its schedule costs them nothing.
__device__ inline uint4 philox4x32(uint4 counter, uint2 key) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * counter.x;
        const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter.z;
        counter = make_uint4(static_cast<uint32_t>(p1 >> 32) ^ counter.y ^ key.x, static_cast<uint32_t>(p1),
                             static_cast<uint32_t>(p0 >> 32) ^ counter.w ^ key.y, static_cast<uint32_t>(p0));
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return counter;
}

}  // namespace colonnade
