#pragma once
// Dense attention with an explicit rows x columns mask: the oracle that FlashMask is checked against. Double precision,
// plain loops, O(rows x columns) memory. With `round_bf16` the yardstick for bf16 kernels instead: what any of them
// rounds is rounded to bf16, and nothing else.

#include <vector>

#include "attention/mask.h"
#include "engine/device/tensor.h"

namespace colonnade {

struct DenseAttention {
    int64_t batch, rows, columns, heads, kv_heads, head_dim;
    double scale;
    std::vector<double> q, k, v, dout;                   ///< inputs, laid out as in FlashMaskForward, contiguous
    std::vector<double> out{}, lse{}, dq{}, dk{}, dv{};  ///< results
    /// Rounds P and dS as operands of their products, and results but for lse. D is that of the rounded out.
    bool round_bf16 = false;
};
/// Fills out and lse, and dq, dk, dv when dout is not empty.
void dense_attention(DenseAttention& a, const ColumnMask& mask);

}  // namespace colonnade
