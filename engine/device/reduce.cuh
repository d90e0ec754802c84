#pragma once
// Sums and maxima over the threads of a CTA, in a fixed order. Every thread gets the result.

#include <cuda_runtime.h>

namespace colonnade {

struct Add {
    __device__ float operator()(float a, float b) const { return a + b; }
    __device__ double operator()(double a, double b) const { return a + b; }
};
/// Ignores NaN.
struct Largest {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
    __device__ double operator()(double a, double b) const { return fmax(a, b); }
};

/// Reduces over `lanes` neighbouring lanes, a power of two up to 32. The whole warp must call it.
template <int lanes, typename T, typename Op>
__device__ T reduce_lanes(T value, Op op) {
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

/// Barrier of the calling thread's group. A group is `group` neighbouring threads (whole warps) of a CTA of `threads`;
/// there are at most 15 groups.
template <int group, int threads>
__device__ void sync_group() {
    if constexpr (group == threads)
        __syncthreads();
    else
        asm volatile("bar.sync %0, %1;" ::"r"(1 + static_cast<int>(threadIdx.x) / group), "n"(group) : "memory");
}

/// Reduces over each group of `group` neighbouring threads (a power of two) of a CTA of `threads`. `slots` is shared
/// memory, one float per warp of the CTA. The next reduction needs other slots; the one after it may use these again.
/// All threads of a warp call it together, and all threads of a group that is larger than a warp.
template <int group, int threads, typename Op>
__device__ float reduce_group(float value, float* slots, Op op) {
    value = reduce_lanes<(group < 32 ? group : 32)>(value, op);
    if constexpr (group > 32) {
        const int warp = static_cast<int>(threadIdx.x) / 32;
        const int first = static_cast<int>(threadIdx.x) / group * (group / 32);
        if (threadIdx.x % 32 == 0) slots[warp] = value;
        sync_group<group, threads>();
        value = slots[first];
#pragma unroll
        for (int w = 1; w < group / 32; ++w) value = op(value, slots[first + w]);
    }
    return value;
}

}  // namespace colonnade
