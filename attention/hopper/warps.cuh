#pragma once
// Warps and warpgroups of a Hopper kernel: lane masks, warp-uniform values, and turns between warpgroups.

#include "engine/device/hopper/ptx.cuh"

namespace colonnade::hopper {

constexpr unsigned whole_warp = 0xffffffffu;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Tells the compiler that all lanes hold the same value.
__device__ __forceinline__ int uniform(int x) {
    return __shfl_sync(whole_warp, x, 0);
}

/// Warpgroups take turns to issue their products, one turn per tile, so that one warpgroup computes on its scores while
/// the tensor cores run the products of another. Named barrier 1 + w gives warpgroup w its turn.
template <int warpgroups>
class Turns {
  public:
    __device__ explicit Turns(int warpgroup)
        : own_(1 + warpgroup), next_(warpgroup + 1 < warpgroups ? 2 + warpgroup : 1) {
        if (next_ == 1) pass();  // the last warpgroup gives the first one its first turn
    }
    __device__ void take() const { sync_named(own_, 256); }
    __device__ void pass() const { arrive_named(next_, 256); }

  private:
    int own_, next_;
};

/// Named barriers after those of Turns: `own_named` + w synchronizes warpgroup w alone.
template <int warpgroups>
constexpr int own_named = 1 + warpgroups;

#endif

}  // namespace colonnade::hopper
