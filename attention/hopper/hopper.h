#pragma once
// FlashMask on Hopper's own instructions (sm_90a): wgmma on tiles that TMA loads, with specialised warps, after
// FlashAttention-3 (arXiv 2407.08608). For attention/flashmask.cpp, which checks the arguments and calls
// hopper_supports() first; the portable kernels take what these do not support.

#include "attention/flashmask.h"

namespace colonnade::cuda {

/// True for a Hopper GPU, bf16, head_dim 64, 128 or 256, at least one row and column, and strides that TMA can follow.
bool hopper_supports(const Context& ctx, const FlashMaskForward& args);
void hopper_forward(const Context& ctx, const FlashMaskForward& args);

bool hopper_supports(const Context& ctx, const FlashMaskBackward& args);
void hopper_backward(const Context& ctx, const FlashMaskBackward& args);
/// Bytes of FlashMaskBackward::scratch that hopper_backward needs; 0 for head dims without a kernel.
int64_t hopper_scratch_bytes(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim);

}  // namespace colonnade::cuda
