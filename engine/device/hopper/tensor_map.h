#pragma once
// Tensor maps: how TMA finds its way through bf16 tensors, strided views [batch, tokens, heads, head_dim] or matrices
// whose rows may be strided. Boxes are slabs of 64 columns with the 128-byte swizzle.

#include <cuda.h>

#include "engine/device/tensor.h"

namespace colonnade::hopper {

/// 16-byte aligned, every stride positive and a multiple of 16 bytes, no dim empty.
bool has_tensor_map(const Tensor& view);

/// Rank 4, {head_dim, heads, tokens, batch}; boxes are `box_tokens` tokens of one head.
CUtensorMap make_tensor_map(const Tensor& view, int box_tokens);

/// 16-byte aligned, the rows' stride a multiple of 16 bytes, no dim empty. There may be any number of columns.
bool has_matrix_map(const Tensor& matrix);

/// Rank 2, {columns, rows}; boxes are `box_rows` rows.
CUtensorMap make_matrix_map(const Tensor& matrix, int box_rows);

}  // namespace colonnade::hopper
