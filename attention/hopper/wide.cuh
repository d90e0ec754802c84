#pragma once
// Backward of wide heads (head_dim 256) on Hopper, one pass per gradient: dV and dK by keys (wide_keys.cu), dQ by rows
// (wide_rows.cu).
//
// The registers of a CTA hold one gradient of 128 keys or rows, or two of 64. With dK and dV of 64 keys at a time,
// instead of the 128 of narrower heads, sums of dQ would take twice the L2 traffic per product, and L2 is already the
// limit for narrower heads. So every pass computes S again, and two of them dP: eight products per tile instead of
// five, but no sums in memory, no exchange between warpgroups, and a fixed order of all additions, deterministic or
// not.

#include "attention/flashmask.h"
#include "attention/hopper/key_feed.cuh"
#include "attention/hopper/warps.cuh"

namespace colonnade::hopper {

/// Both use the counters and statistics of `problem.scratch`, but no sums and no tickets.
void wide_key_gradients(const Context& ctx, const BackwardProblem& problem, const BackwardMaps& maps);
void wide_query_gradients(const Context& ctx, const FlashMaskBackward& args, const BackwardProblem& problem);

}  // namespace colonnade::hopper
