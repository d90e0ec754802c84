#pragma once
// Dense attention with an explicit rows x columns mask: the oracle that FlashMask is checked against. Double precision,
// plain loops, O(rows x columns) memory.

#include <vector>

#include "attention/mask.h"
#include "engine/tensor.h"

namespace colonnade {

struct DenseAttention {
    int64_t batch, rows, columns, heads, kv_heads, head_dim;
    double scale;
    std::vector<double> q, k, v, dout;                   ///< inputs, laid out as in FlashMaskForward, contiguous
    std::vector<double> out{}, lse{}, dq{}, dk{}, dv{};  ///< results
};
/// Fills out and lse, and dq, dk, dv when dout is not empty.
void dense_attention(DenseAttention& a, const ColumnMask& mask);

}  // namespace colonnade
