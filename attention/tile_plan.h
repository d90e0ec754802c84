#pragma once
// TilePlan: which tiles of the attention matrix are empty, partial or full. Built once per batch from the column
// vectors and shared by all layers and both passes. Empty tiles cost nothing, full ones need no mask work, and only
// partial ones test elements.
//
// A plan belongs to the device it was made for: TilePlan::cpu holds lists of tiles in host memory, TilePlan::gpu bit
// maps in device memory. A *sheet* is the rows x columns mask of one (batch, mask head).

#include <vector>

#include "attention/mask.h"
#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

/// The plan of the CPU: lists of tiles. Exact: a tile that the two hidden ranges, the causal rule and a window of
/// positions cover only together is empty as well. Building it takes O(columns + row blocks between the first and the
/// last visible row of each column block); a mask with positions takes as many steps per column as runs of rising
/// positions see it.
struct CpuTilePlan {
    struct Tile {
        int32_t index;  ///< column block in by_row, row block in by_column
        bool partial;
    };

    std::vector<int64_t> by_row_begin{};     ///< [batch * heads * row_blocks + 1] into by_row
    std::vector<Tile> by_row{};              ///< active column blocks of each row block, ascending
    std::vector<int64_t> by_column_begin{};  ///< [batch * heads * column_blocks + 1] into by_column
    std::vector<Tile> by_column{};           ///< the transpose
    /// Schedules: indices of the lists of by_row and of by_column, (batch, head, block) flattened, longest list first.
    /// For passes whose lists do not wait for each other; the backward pass takes column blocks in ascending order.
    std::vector<int32_t> row_order{}, column_order{};
    int64_t visible_pairs = 0;  ///< (query, key) pairs, summed over batch and mask heads

    int64_t active_tiles() const { return static_cast<int64_t>(by_row.size()); }
    int64_t partial_tiles() const;
};

/// The plan of a GPU: one bit per 64 x 64 tile. Conservative: a tile whose columns differ may be called partial
/// although no pair in it is visible, or although all are, because only the extremes of the columns are compared. The
/// columns are tested one by one only if a window of positions ends within the tile. A tile that reaches past the last
/// column is never full. Partial tiles are active as well.
struct GpuTilePlan {
    static constexpr int64_t tile = 64;

    /// i32 [sheets, padded columns, 4]: lts, lte, uts, ute of every column, defaults filled in; an empty range is
    /// [INT_MAX, INT_MIN). Columns are padded to a multiple of 128 with ones that no row sees (lts = INT_MIN, lte =
    /// INT_MAX). The causal rule is not included.
    Tensor bounds;
    /// i32 [batch, padded columns]: ColumnMask::row_positions, padded with 0; empty in memory without room for them.
    Tensor positions;
    Tensor row_active, row_partial;  ///< i32 [sheets, row_blocks, ceil(column_blocks / 32)]: bit c % 32 of word c / 32
    Tensor column_active, column_partial;  ///< i32 [sheets, column_blocks, ceil(row_blocks / 32)]: the transposes
    /// Schedules over pairs of blocks, longest first, ties in ascending order: i32 [sheets * block pairs] with entries
    /// sheet * block pairs + pair, where block pairs = ceil(row_blocks / 2) or ceil(column_blocks / 2). The length of a
    /// pair of row blocks is the number of its active tiles, that of column blocks the number of row blocks with one.
    Tensor row_order, column_order;
    /// Only the kernels in attention/hopper read these.
    struct Hopper {
        Tensor row_triple_order;  ///< row_order for groups of three row blocks
        /// i64 [2], sums over all pairs of column blocks: lags (hopper/backward_schedule.h), active row blocks.
        Tensor column_lags;
        Tensor last_column_order;  ///< i32 [column block pairs]: those of the last sheet, longest first
        Tensor longest_columns;    ///< i32 [32]: lengths of the first pairs of column_order, 0 if there are fewer
    } hopper;
    Tensor scratch;  ///< u8, used while the plan is built

    /// Memory for masks of this size, counted as "tile plans". `positions`: rows of the batch that may have positions.
    /// Empty in an arena of the CPU.
    static GpuTilePlan lay_out(Arena& arena, int64_t sheets, int64_t rows, int64_t columns, int64_t positions = 0);
    static GpuTilePlan lay_out(Arena& arena, const ColumnMask& mask) {
        return lay_out(arena, mask.batch * mask.heads, mask.rows, mask.columns,
                       mask.position_window > 0 ? mask.batch : 0);
    }
};

struct TilePlan {
    int64_t tile_rows = 64, tile_columns = 64;
    int64_t batch = 0, heads = 0;  ///< mask heads
    int64_t row_blocks = 0, column_blocks = 0;

    CpuTilePlan cpu{};  ///< empty in a plan of a GPU
    GpuTilePlan gpu{};  ///< empty in a plan of the CPU

    Device device() const { return gpu.bounds.rank == 0 ? Device::cpu : Device::cuda; }
    int64_t tiles() const { return batch * heads * row_blocks * column_blocks; }
};

/// The plan for attention on the context's device. On a GPU it is built in `memory`, laid out for the mask's size, with
/// 64 x 64 tiles; all work is enqueued and nothing waits. On the CPU `memory` is ignored and may be {}; tiles are 64 x
/// 64, or 32 x 32 if little of the 64 x 64 ones is visible. Validates the mask: Exit::data if it is invalid.
TilePlan make_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask);

/// The plan of the CPU with tiles of a given size. Validates the mask.
TilePlan make_tile_plan(const ColumnMask& mask, int64_t tile_rows = 64, int64_t tile_columns = 64);

/// The plan of a GPU. Validates the mask.
TilePlan make_gpu_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask);

/// The vectors of a mask in device memory, i32 [batch, heads, columns] each; empty if the mask does not carry one.
struct GpuColumns {
    Tensor lts{}, lte{}, uts{}, ute{};
};
/// The plan of a GPU from vectors that are there already: nothing is uploaded. Of `sizes` the sizes, `causal` and
/// `position_window` count; with a window, memory.positions holds the positions.
/// The vectors are not validated: ranges beyond the rows are cut, overlapping ones hide what either hides.
TilePlan make_gpu_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& sizes,
                            const GpuColumns& columns);

/// The plan that is in `memory` since one of the functions above made it for a mask of these sizes.
TilePlan gpu_tile_plan_in(const GpuTilePlan& memory, const ColumnMask& sizes);

/// Number of visible (query, key) pairs of a valid mask, summed over batch and mask heads, in O(columns).
int64_t count_visible_pairs(const ColumnMask& mask);

}  // namespace colonnade
