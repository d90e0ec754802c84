#pragma once
// FlashMask on Hopper's own instructions (sm_90a): wgmma on tiles that TMA brings, warps specialised, after
// FlashAttention-3 (arXiv 2407.08608). Declared for attention/flashmask.cpp, which checks the arguments and asks
// hopper_supports() first; the portable kernels take what these do not.

#include "attention/flashmask.h"

namespace colonnade::cuda {

/// A Hopper GPU, bf16, head_dim 64 or 128, some rows and columns, strides that TMA can follow.
bool hopper_supports(const Context& ctx, const FlashMaskForward& args);
void hopper_forward(const Context& ctx, const FlashMaskForward& args);

}  // namespace colonnade::cuda
