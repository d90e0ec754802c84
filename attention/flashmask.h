#pragma once
// FlashMask attention, forward and backward (arXiv 2410.01359, algorithm 1, on the online softmax of FlashAttention-2):
//
//     S = scale * Q K^T, hidden pairs -> -inf;   lse = log sum exp S;   P = exp(S - lse);   O = P V
//     D = rowsum(dO * O);   dV = P^T dO;   dP = dO V^T;   dS = P * (dP - D);   dQ = scale * dS K;   dK = scale * dS^T Q
//
// Nothing of size rows x columns is ever stored. Query head h reads key/value head h / (heads / kv_heads). A row that
// sees no key has O = 0, lse = -inf and no gradient. Any length, head dims to 256, f32 and f64 on the CPU.
// Deterministic: every output element is summed in one fixed order, whatever the number of threads.

#include "attention/mask.h"
#include "attention/tile_plan.h"
#include "engine/context.h"

namespace colonnade {

// q, k, v, out and their gradients may be strided views (slices of packed qkv rows); their last dim must be contiguous.
struct FlashMaskForward {
    Tensor out;   ///< [batch, rows, heads, head_dim]
    Tensor lse;   ///< [batch, heads, rows], same dtype, contiguous
    Tensor q;     ///< [batch, rows, heads, head_dim]
    Tensor k, v;  ///< [batch, columns, kv_heads, head_dim]
    const ColumnMask& mask;
    const TilePlan& plan;
    double scale;  ///< usually 1 / sqrt(head_dim)
};
void flashmask_forward(const Context& ctx, const FlashMaskForward& args);

struct FlashMaskBackward {
    Tensor dq, dk, dv;  ///< shapes of q, k, v; overwritten
    Tensor dout, out, lse;
    Tensor q, k, v;
    const ColumnMask& mask;
    const TilePlan& plan;
    double scale;
};
void flashmask_backward(const Context& ctx, const FlashMaskBackward& args);

}  // namespace colonnade
