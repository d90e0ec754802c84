#pragma once
// Index arithmetic of Hopper's backward, for device and host: which of a thread's scores the bounds of a key hide, and
// the layout of sums of dQ. tests/attention/hopper/hopper_backward_maps_test.cpp compares it with plain loops.

#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade::hopper {

// --- The element mask ------------------------------------------------------------------------------------------------
// S^T of a warpgroup is 64 keys x 64 query rows. A thread has two keys, and rows 8 j + first_in_group + e of each with
// j < 8, e < 2 and first_in_group = 2 (lane % 4). Element 4 j + 2 r + e of its accumulator belongs to key r.

/// Bits 4 j + e of the thread's rows before row `n` of the tile, 0 <= n <= 64. Bits 4 j + 2 and 4 j + 3 of whole groups
/// before row n are set as well.
COLONNADE_HOST_DEVICE inline uint32_t rows_before(int n, int first_in_group) {
    const int after = n > first_in_group ? n - first_in_group : 0, in_group = (after & 7) < 2 ? after & 7 : 2;
    return static_cast<uint32_t>((uint64_t{1} << ((after >> 3) * 4 + in_group)) - 1);
}

/// Bits, as above, of rows [from, to) of the matrix in the tile that begins at first_row.
COLONNADE_HOST_DEVICE inline uint32_t rows_within(int from, int to, int first_row, int first_in_group) {
    const auto clamp = [&](int row) {
        const int least = row > first_row ? row : first_row, most = first_row + 64;
        return (least < most ? least : most) - first_row;
    };
    return rows_before(clamp(to), first_in_group) & ~rows_before(clamp(from), first_in_group);
}

/// Bits 4 j + e of the thread's rows that may not see a key: rows within its bounds, which are as in GpuTilePlan, and
/// rows before causal_end.
COLONNADE_HOST_DEVICE inline uint32_t hidden_rows(int lts, int lte, int uts, int ute, int causal_end, int first_row,
                                                  int first_in_group) {
    return (rows_within(lts, lte, first_row, first_in_group) | rows_within(uts, ute, first_row, first_in_group) |
            rows_within(0, causal_end, first_row, first_in_group)) &
           0x33333333u;
}

struct alignas(8) PositionPair {
    int32_t of_row[2];
};
/// Bits 4 j + 2 r + e of the thread's rows whose position is `limits[r]` or more: they are past the window of key r.
/// `positions` are those of the tile's rows, 8-byte aligned.
COLONNADE_HOST_DEVICE inline uint32_t rows_past_window(const int32_t* positions, int first_in_group,
                                                       const int32_t (&limits)[2]) {
    const auto* pairs = reinterpret_cast<const PositionPair*>(positions + first_in_group);
    uint32_t bits = 0;
    for (int j = 7; j >= 0; --j) {
        const PositionPair pair = pairs[4 * j];
        for (int i = 3; i >= 0; --i)  // the sign of the difference is the bit
            bits = bits << 1 | static_cast<uint32_t>(limits[i / 2] - 1 - pair.of_row[i % 2]) >> 31;
    }
    return bits;
}

// --- Sums of dQ ------------------------------------------------------------------------------------------------------
// Blocks of 64 rows x 64 columns of head_dim, 16 KiB each, in the order in which the threads of a warpgroup hold the
// accumulator: float 4 (128 j + thread) + i is element 4 j + i of that thread.

constexpr int sum_block = 64 * 64;

/// Index of the first of the 16 floats for columns 8 j .. 8 j + 7 of rows r and r + 8, r = 16 warp + row. They are the
/// vectors of four lanes; lane l has columns 2 l and 2 l + 1 of row r, then of row r + 8.
COLONNADE_HOST_DEVICE inline int sums_of(int j, int warp, int row) {
    return 4 * (128 * j + 32 * warp + 4 * row);
}

}  // namespace colonnade::hopper
