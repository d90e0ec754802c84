#pragma once
// A tile plan as text, for documents and terminals: one line per row block, one character per column block. '#' is a
// full tile, '/' a partial one, '.' an empty one. Blocks are numbered along the top and the left.

#include <string>

#include "attention/tile_plan.h"

namespace colonnade {

/// '#', '/' or '.' for every tile, [batch, mask heads, row_blocks, column_blocks]. Downloads the plan of a GPU.
std::string tile_classes(const Context& ctx, const TilePlan& plan);

/// Counts of tiles and visible pairs over all sheets, then a picture of each sheet (batch, mask head). Pictures are at
/// most `width` characters wide and high: in larger plans a character stands for n x n tiles, '/' unless all have the
/// same class.
std::string plan_picture(const Context& ctx, const ColumnMask& mask, const TilePlan& plan, int64_t width = 64);

}  // namespace colonnade
