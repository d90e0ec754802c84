#pragma once
// The GPU side of attention/flashmask.h and attention/tile_plan.h, behind their checks.
// attention/cuda_kernels_without_cuda.cpp stands in where the build has no CUDA.

#include "attention/flashmask.h"

namespace colonnade::cuda {

/// By mma.sync, any sm_80 or newer GPU (attention/portable).
void portable_forward(const Context& ctx, const FlashMaskForward& args);
void portable_backward(const Context& ctx, const FlashMaskBackward& args);
/// What portable_backward takes as FlashMaskBackward::scratch.
int64_t portable_scratch_bytes(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim);

struct TilePlanBuild {
    /// Of each block of 64 columns: min and max of lts, of lte, of uts, of ute.
    static constexpr int64_t extremes_of_block = 8;

    const GpuTilePlan& plan;    ///< outputs
    Tensor lts, lte, uts, ute;  ///< i32 [slices, columns], empty where the mask does not carry the vector
    Tensor extremes;            ///< i32 scratch [slices * padded columns / 64 * 8]
    Tensor counts;  ///< i32 scratch [slices * (pairs of row blocks + pairs of column blocks + triples of row blocks)]
    int64_t rows, columns;
    bool causal;
};
void build_tile_plan(const Context& ctx, const TilePlanBuild& args);

}  // namespace colonnade::cuda
