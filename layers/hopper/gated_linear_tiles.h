#pragma once
// The order in which clusters take the tiles of a product, for the kernels and their test
// (tests/layers/gated_linear_test.cpp).

#include "engine/device/host_device.h"

namespace colonnade::hopper {

struct GatedTile {
    int row_block, column_block;
};

/// Tile t of row_blocks x column_blocks. `group` row blocks advance through all columns together: the tiles that run at
/// the same time, some tens of neighbours in this order, then share few rows of both operands, and the group's rows
/// stay in L2.
COLONNADE_HOST_DEVICE inline GatedTile gated_tile(int t, int row_blocks, int column_blocks, int group) {
    const int first = t / (group * column_blocks) * group, left = row_blocks - first,
              rows = left < group ? left : group, within = t - first * column_blocks;
    return {first + within % rows, within / rows};
}

}  // namespace colonnade::hopper
