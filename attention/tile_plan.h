#pragma once
// TilePlan: which tiles of the attention matrix are empty, partial or full. Built once per batch from the column
// vectors, used by every layer and by both passes. An empty tile costs nothing anywhere, a full one pays no mask work,
// only partial ones test elements. Exact on the CPU: what the two hidden ranges and the causal rule cover only together
// is empty as well. Takes O(columns + row blocks between the first and the last visible row of each column block).

#include <vector>

#include "attention/mask.h"
#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

/// The plan of a GPU, in its memory: a bit for each 64 x 64 tile. A slice is one (batch, mask head).
struct GpuTilePlan {
    static constexpr int64_t tile = 64;

    /// i32 [slices, padded columns, 4]: lts, lte, uts, ute of every column, defaults filled in; an empty range is
    /// [INT_MAX, INT_MIN). Columns are padded to a multiple of 128 by ones that no row sees (lts = INT_MIN, lte =
    /// INT_MAX). The causal rule is not in them.
    Tensor bounds;
    Tensor row_active, row_partial;  ///< i32 [slices, row_blocks, ceil(column_blocks / 32)]: bit c % 32 of word c / 32
    Tensor column_active, column_partial;  ///< i32 [slices, column_blocks, ceil(row_blocks / 32)]: the transposes
    /// Schedules over pairs of blocks (128 rows, 128 columns), most active tiles first, ties in ascending order: i32
    /// [slices * ceil(row_blocks / 2)], entries slice * ceil(row_blocks / 2) + pair. Likewise for columns, and for three
    /// row blocks each.
    Tensor row_order, column_order, row_triple_order;
    /// i64 [2], of all pairs of column blocks: how much later each must begin than the pair after it so that it never
    /// waits for that one on the way down their rows (hopper/backward_schedule.h), and how many row blocks they go through.
    Tensor column_lags;
    Tensor scratch;  ///< u8, for building

    /// Room for masks of this size; counted as "tile plans". Empty in an arena of the CPU, whose plans need none.
    static GpuTilePlan lay_out(Arena& arena, int64_t slices, int64_t rows, int64_t columns);
    static GpuTilePlan lay_out(Arena& arena, const ColumnMask& mask) {
        return lay_out(arena, mask.batch * mask.heads, mask.rows, mask.columns);
    }
};

struct TilePlan {
    struct Tile {
        int32_t index;  ///< column block in by_row, row block in by_column
        bool partial;
    };

    int64_t tile_rows = 64, tile_columns = 64;
    int64_t batch = 0, heads = 0;  ///< mask heads
    int64_t row_blocks = 0, column_blocks = 0;
    std::vector<int64_t> by_row_begin{};     ///< [batch * heads * row_blocks + 1] into by_row
    std::vector<Tile> by_row{};              ///< surviving column blocks of each row block, ascending
    std::vector<int64_t> by_column_begin{};  ///< [batch * heads * column_blocks + 1] into by_column
    std::vector<Tile> by_column{};           ///< the transpose
    /// Schedules: lists of by_row and of by_column, (batch, head, block) flattened, longest first. For passes whose
    /// lists do not wait for each other: the CPU's backward goes by column blocks in ascending order instead.
    std::vector<int32_t> row_order{}, column_order{};

    int64_t partial_tiles() const;
    int64_t surviving_tiles() const { return static_cast<int64_t>(by_row.size()); }
    /// Surviving over all tiles.
    double visible_share() const;
    /// Exact count of visible (query, key) pairs, summed over batch and mask heads. Only in a plan of the CPU: for
    /// others see count_visible_pairs().
    int64_t visible_pairs = 0;

    /// On a GPU this is the plan, and the vectors above are empty.
    GpuTilePlan gpu{};
};

/// Validates the mask first: Exit::data where it is not valid.
TilePlan make_tile_plan(const ColumnMask& mask, int64_t tile_rows = 64, int64_t tile_columns = 64);

/// The pairs of a valid mask alone, in O(columns).
int64_t count_visible_pairs(const ColumnMask& mask);

/// The plan built on the GPU, with 64 x 64 tiles, in memory that was laid out for the mask's size; enqueued, nothing
/// waits. Conservative where the columns of a tile differ, as it looks at their extremes: such a tile may be called
/// partial although no pair in it is visible, or although all are. A tile that reaches past the last column is never
/// full. Bit maps are written whole, a partial tile is an active one.
TilePlan make_gpu_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask);

/// The plan for attention on the context's device: that of the GPU in `memory`, or one of the CPU with 64 x 64 tiles, or
/// 32 x 32 ones where little of those is visible.
TilePlan make_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask);

}  // namespace colonnade
