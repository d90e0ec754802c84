#pragma once
// Tensor maps: how TMA finds its way through a strided view [batch, tokens, heads, head_dim] of bf16.

#include <cuda.h>

#include "engine/tensor.h"

namespace colonnade::hopper {

/// 16-byte aligned, every stride positive and a multiple of 16 bytes, no dim empty.
bool has_tensor_map(const Tensor& view);

/// Rank 4, {head_dim, heads, tokens, batch}; boxes are slabs of 64 elements of `box_tokens` tokens of one head, with
/// the 128-byte swizzle.
CUtensorMap make_tensor_map(const Tensor& view, int box_tokens);

}  // namespace colonnade::hopper
