#pragma once
// Whether a column hides a whole block of rows, for device and host: how the plan of a GPU (tile_plan.cu) decides on
// tiles within which a window of positions ends. tests/attention/tile_plan_test.cpp compares it with the plan of the CPU.

#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade {

/// A column of a mask whose rows have positions.
struct TileColumn {
    int32_t lts, lte, uts, ute;  ///< as in GpuTilePlan::bounds
    int32_t causal_rows;         ///< the column is in the future of rows [0, causal_rows)
    int32_t limit;               ///< the first position that is past the column's window

    /// True if the column hides the rows [begin, end). least[i] is the least position of rows begin .. begin + i. The
    /// rows that ranges hide are left out at either end of the block: they may belong to other trees, whose positions
    /// say nothing. Rows that ranges hide between others count as well, which may only keep a tile that could go.
    COLONNADE_HOST_DEVICE bool hides(int32_t begin, int32_t end, const int32_t* least) const {
        int32_t first = begin > causal_rows ? begin : causal_rows;
        if (uts <= first && ute > first) first = ute;
        if (lts <= first && lte > first) first = lte;
        const int32_t last = lte >= end && lts < end ? lts : end;
        return first >= last || least[last - 1 - begin] >= limit;
    }
};

}  // namespace colonnade
