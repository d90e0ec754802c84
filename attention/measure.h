#pragma once
// FlashMask on random data, on either device: how long it takes, and how far it is from the dense oracle.

#include <span>

#include "attention/dense.h"
#include "attention/mask.h"
#include "attention/tile_plan.h"
#include "engine/device/context.h"

namespace colonnade {

struct AttentionSize {
    int64_t heads = 8, kv_heads = 8, head_dim = 64;
    DType dtype = DType::f32;  ///< f32 or f64 on the CPU, bf16 on a GPU
    /// Of the CPU's plan: 0 leaves them to make_tile_plan(), or is 64 beside one that is given.
    int64_t tile_rows = 0, tile_columns = 0;
    double range = 2;  ///< operands are uniform in [-range, range); logits grow with its square
};

/// The plan of a call of this size on the context's device.
TilePlan tile_plan_of(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask, const AttentionSize& size);

struct Measurement {
    double tile_share, pair_share;                           ///< visible over all tiles, (query, key) pairs
    double plan_seconds, forward_seconds, backward_seconds;  ///< medians
    double deterministic_seconds;  ///< backward with Context::deterministic; the CPU always is
    /// Over visible pairs: 4 x head_dim forward and 10 x head_dim backward for each pair and query head.
    double forward_flops, backward_flops;
};
/// One untimed run, then `repeat` timed ones; on a GPU by events, the host ahead of it as in a training step.
Measurement measure_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size, int repeat);

/// Worst relative errors max |a - b| / max |b| against the oracle b (absolute where b is all 0); infinite where one
/// holds a NaN or an lse of -inf that the other does not.
struct AttentionErrors {
    double out, lse, dq, dk, dv;
    double worst() const { return std::max({out, lse, dq, dk, dv}); }
    bool within(const AttentionErrors& bounds) const;
};
struct AttentionCheck {
    AttentionErrors errors;
    /// f32, f64: what sums of some thousand rounded terms may be off by, with a margin. bf16: twice the errors of dense
    /// attention that rounds where every bf16 kernel does (DenseAttention::round_bf16), and a little for f32's sums,
    /// which show where that happens to be exact; lse, never in bf16, 1e-5.
    AttentionErrors bounds;
};
struct AttentionResults {
    std::vector<double> out, lse, dq, dk, dv;
};
/// Results of FlashMask in `dtype` on the inputs of `inputs`; errors are the worst over all `runs`.
AttentionCheck compare_with_dense(DenseAttention inputs, const ColumnMask& mask, DType dtype,
                                  std::span<const AttentionResults> runs);
/// Runs forward and backward on random data; on a GPU, backward both deterministic and not.
AttentionCheck check_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size);

}  // namespace colonnade
