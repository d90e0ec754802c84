#pragma once
// Backward of wide heads (head_dim 256) on Hopper, a pass for each gradient: dV and dK of keys that stay (wide_keys.cu), dQ
// of rows that stay (wide_rows.cu).
//
// A CTA's registers hold one gradient of 128 keys or rows, or two of 64. With dK and dV of 64 keys at a time, where narrower
// heads have them of 128, sums of dQ would cost L2 twice the traffic a product, and it already binds those. So every pass
// works S out again, and two of them dP: eight products a tile instead of five, but no sums in memory, no exchange between
// warpgroups, and one order of all additions whether it is asked for or not.

#include "attention/flashmask.h"
#include "attention/hopper/backward_feed.cuh"

namespace colonnade::hopper {

constexpr int wide_head_dim = 256;
/// Counters of items that the passes take from scratch, 0 before.
constexpr int wide_counters = 4;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Both warpgroups issue their products that make scores by turns, one a tile, so that what one makes of them runs beside
/// the other's products. Named barriers 1 and 2.
class Turns {
  public:
    __device__ explicit Turns(int warpgroup) : warpgroup_(warpgroup) {
        if (warpgroup == 1) pass();
    }
    __device__ void take() const { sync_named(1 + warpgroup_, 256); }
    __device__ void pass() const { arrive_named(2 - warpgroup_, 256); }

  private:
    int warpgroup_;
};
constexpr int own_named = 3;  ///< + warpgroup: named barriers of one alone

#endif

/// `problem.next`: counters. Reads `statistics`, neither sums nor tickets.
void wide_key_gradients(const Context& ctx, const FlashMaskBackward& args, const BackwardProblem& problem,
                        const BackwardMaps& maps);
void wide_query_gradients(const Context& ctx, const FlashMaskBackward& args, const BackwardProblem& problem);

}  // namespace colonnade::hopper
