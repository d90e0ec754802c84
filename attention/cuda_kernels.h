#pragma once
// The GPU side of attention/flashmask.h and attention/tile_plan.h, behind their checks.
// attention/cuda_kernels_without_cuda.cpp replaces it in a build without CUDA.

#include "attention/decode.h"
#include "attention/flashmask.h"

namespace colonnade::cuda {

/// Kernels on mma.sync for any GPU from sm_80 on (attention/portable).
void portable_forward(const Context& ctx, const FlashMaskForward& args);
void portable_backward(const Context& ctx, const FlashMaskBackward& args);
/// Rows of its scratch.
inline int64_t padded_rows(int64_t rows) {
    return (rows + 127) / 128 * 128;
}
/// Bytes of FlashMaskBackward::scratch that portable_backward needs.
int64_t portable_scratch_bytes(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim);

struct TilePlanBuild {
    /// Per block of 64 columns: min and max of lts, of lte, of uts, of ute.
    static constexpr int64_t extremes_of_block = 8;

    const GpuTilePlan& plan;    ///< outputs
    Tensor lts, lte, uts, ute;  ///< i32 [sheets, columns], empty if the mask does not carry the vector
    Tensor extremes{};          ///< i32 scratch [sheets * padded columns / 64 * 8]
    Tensor counts{};  ///< i32 scratch [sheets * (pairs of row blocks + pairs of column blocks + triples of row blocks)]
    /// i32 scratch [batch * padded columns], [batch * padded columns / 64]; empty without a window of positions.
    Tensor least_positions{}, most_positions{};
    int64_t heads, rows, columns;  ///< mask heads
    bool causal;
    int32_t window;  ///< of the plan's positions; 0 without one
};
void build_tile_plan(const Context& ctx, const TilePlanBuild& args);

void decode_attention(const Context& ctx, const DecodeAttention& args);
int64_t decode_attention_scratch_bytes(const DecodeAttentionSizes& sizes);

}  // namespace colonnade::cuda
