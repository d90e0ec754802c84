#pragma once
// FlashMask attention, forward and backward (arXiv 2410.01359, algorithm 1, on the online softmax of FlashAttention-2):
//
//     S = scale * Q K^T, hidden pairs -> -inf;   lse = log sum exp S;   P = exp(S - lse);   O = P V
//     D = rowsum(dO * O);   dV = P^T dO;   dP = dO V^T;   dS = P * (dP - D);   dQ = scale * dS K;   dK = scale * dS^T Q
//
// Nothing of size rows x columns is ever stored. Query head h reads key/value head h / (heads / kv_heads). A row that
// sees no key has O = 0, lse = -inf and zero gradients. Any length, 0 included. There is no dropout, bias, softcap or
// sink.
//
// CPU: f32 and f64, head dims 1 to 256. GPU (sm_80 or newer): bf16 with sums in f32, head dims 64, 96, 128, 256, lse
// f32; every head of every token 16-byte aligned. All work is enqueued on Gpu::stream(), nothing waits.
//
// Determinism: every output element is summed in one fixed order, whatever the number of threads. The exception is dQ
// on a GPU, whose order is fixed only with Context::deterministic, because that costs time.
//
// Both functions throw Error (a std::runtime_error) before any work starts: Exit::config for a head_dim without a
// kernel, Exit::internal for an operand that does not fit. Calls with different contexts may run at the same time; one
// Gpu serves one thread at a time.

#include "attention/mask.h"
#include "attention/tile_plan.h"
#include "engine/device/context.h"

namespace colonnade {

// q, k, v, out and their gradients may be strided views (slices of packed qkv rows); their last dim must be contiguous.
struct FlashMaskForward {
    Tensor out;   ///< [batch, rows, heads, head_dim]
    Tensor lse;   ///< [batch, heads, rows], sum_dtype, contiguous
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
    Tensor scratch{};  ///< GPU: u8 [flashmask_scratch_bytes(q)], 256-byte aligned; contents do not matter
};
void flashmask_backward(const Context& ctx, const FlashMaskBackward& args);

/// True if there is a kernel for heads of this size.
bool flashmask_runs(Device device, int64_t head_dim);

/// Bytes of FlashMaskBackward::scratch for queries of this shape, deterministic or not; 0 on the CPU.
int64_t flashmask_scratch_bytes(const Tensor& q);

}  // namespace colonnade
