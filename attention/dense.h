#pragma once
// The oracle of FlashMask: dense attention with an explicit rows x columns mask in double, and errors against it.

#include <span>
#include <vector>

#include "attention/mask.h"
#include "engine/device/tensor.h"

namespace colonnade {

struct DenseAttention {
    int64_t batch, rows, columns, heads, kv_heads, head_dim;
    double scale;
    std::vector<double> q, k, v, dout{};                 ///< inputs, laid out as in FlashMaskForward, contiguous
    std::vector<double> out{}, lse{}, dq{}, dk{}, dv{};  ///< results
    /// Yardstick for bf16 kernels: rounds to bf16 exactly what every such kernel rounds, which is P and dS as operands
    /// of products, and all results but lse. D is computed from the rounded out.
    bool round_bf16 = false;
};
/// Fills out and lse, and dq, dk, dv unless dout is empty. Plain loops; takes O(rows x columns) memory.
void dense_attention(DenseAttention& a, const ColumnMask& mask);

/// Worst relative errors max |a - b| / max |b| against the oracle b, or absolute errors if b is all 0. Infinite if one
/// side has a NaN or an lse of -inf that the other side does not have.
struct AttentionErrors {
    double out, lse, dq, dk, dv;
    double worst() const { return std::max({out, lse, dq, dk, dv}); }
    bool within(const AttentionErrors& bounds) const;
};
struct AttentionResults {
    std::vector<double> out, lse, dq, dk, dv;
};
struct AttentionCheck {
    AttentionErrors errors;
    /// f32, f64: the rounding error of sums of some thousand terms, with a margin. bf16: twice the errors of dense
    /// attention with round_bf16, plus a little for sums in f32, which matters if that attention happens to be exact;
    /// lse, which is never bf16, 1e-5.
    AttentionErrors bounds;
};
/// Compares results of FlashMask in `dtype` on the inputs of `inputs` with the oracle. Errors are the worst over
/// `runs`.
AttentionCheck compare_with_dense(DenseAttention inputs, const ColumnMask& mask, DType dtype,
                                  std::span<const AttentionResults> runs);

}  // namespace colonnade
