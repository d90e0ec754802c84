#pragma once
// FlashMask on random data: how long it takes, and how far it is from the dense oracle.

#include "attention/mask.h"
#include "engine/tensor.h"

namespace colonnade {

struct AttentionSize {
    int64_t heads = 8, kv_heads = 8, head_dim = 64;
    DType dtype = DType::f32;
    int64_t tile_rows = 64, tile_columns = 64;
};

struct Measurement {
    double tile_share, pair_share;                           ///< visible over all tiles, (query, key) pairs
    double plan_seconds, forward_seconds, backward_seconds;  ///< medians
    /// Over visible pairs: 4 x head_dim forward and 10 x head_dim backward for each pair and query head.
    double forward_flops, backward_flops;
};
/// One untimed run, then `repeat` timed ones.
Measurement measure_flashmask(const ColumnMask& mask, const AttentionSize& size, int repeat);

/// Worst relative errors max |a - b| / max |b| against the oracle b (absolute where b is all 0); infinite where one
/// holds a NaN or an lse of -inf that the other does not.
struct AttentionErrors {
    double out, lse, dq, dk, dv;
    double worst() const { return std::max({out, lse, dq, dk, dv}); }
};
AttentionErrors check_flashmask(const ColumnMask& mask, const AttentionSize& size);

}  // namespace colonnade
