#pragma once
// A tile plan as text, for pages and terminals: a line for each row block, a character for each column block, '#' for a
// full tile, '/' for a partial one, '.' for an empty one. Numbers along the top and the left are those of blocks.

#include <string>

#include "attention/tile_plan.h"

namespace colonnade {

/// '#', '/' or '.' for every tile, [batch, mask heads, row_blocks, column_blocks]. A plan of the GPU is downloaded.
std::string tile_classes(const Context& ctx, const TilePlan& plan);

/// Counts of tiles and visible pairs of all slices, then a picture of each slice (batch, mask head). It is at most
/// `width` characters wide and high: in larger plans a character stands for n x n tiles, '/' unless all are of one class.
std::string plan_picture(const Context& ctx, const ColumnMask& mask, const TilePlan& plan, int64_t width = 64);

}  // namespace colonnade
