#pragma once
// Tensor maps: descriptors by which TMA addresses bf16 tensors, strided views [batch, tokens, heads, head_dim] or
// matrices with strided rows. Boxes are slabs of 64 columns with the 128-byte swizzle.

#include <cuda.h>

#include "engine/device/tensor.h"

namespace colonnade::hopper {

/// True if TMA can address the view: 16-byte aligned, every stride positive and a multiple of 16 bytes, no dim empty.
bool has_tensor_map(const Tensor& view);

/// A map of rank 4, {head_dim, heads, tokens, batch}; boxes are `box_tokens` tokens of one head.
CUtensorMap make_tensor_map(const Tensor& view, int box_tokens);

/// True if TMA can address the matrix: 16-byte aligned, row stride a multiple of 16 bytes, no dim empty. Any number of
/// columns is allowed.
bool has_matrix_map(const Tensor& matrix);

/// A map of rank 2, {columns, rows}; boxes are `box_rows` rows.
CUtensorMap make_matrix_map(const Tensor& matrix, int box_rows);

}  // namespace colonnade::hopper
