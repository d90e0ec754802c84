#pragma once
// FlashMask on Hopper's own instructions (sm_90a): wgmma on tiles that TMA brings, warps specialised, after
// FlashAttention-3 (arXiv 2407.08608). Declared for attention/flashmask.cpp, which checks the arguments and asks
// hopper_supports() first; the portable kernels take what these do not.

#include "attention/flashmask.h"

namespace colonnade::cuda {

/// A Hopper GPU, bf16, head_dim 64, 128 or 256, some rows and columns, strides that TMA can follow.
bool hopper_supports(const Context& ctx, const FlashMaskForward& args);
void hopper_forward(const Context& ctx, const FlashMaskForward& args);

bool hopper_supports(const Context& ctx, const FlashMaskBackward& args);
void hopper_backward(const Context& ctx, const FlashMaskBackward& args);
/// What hopper_backward takes as FlashMaskBackward::scratch; 0 for head dims that it has no kernel for.
int64_t hopper_scratch_bytes(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim);

}  // namespace colonnade::cuda
