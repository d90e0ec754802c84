#pragma once
// TilePlan: which tiles of the attention matrix are empty, partial or full. Built once per batch from the column
// vectors, used by every layer and by both passes. An empty tile costs nothing anywhere, a full one pays no mask work,
// only partial ones test elements. Exact: what the two hidden ranges and the causal rule cover only together is empty
// as well. Takes O(columns + row blocks between the first and the last visible row of each column block).

#include <vector>

#include "attention/mask.h"

namespace colonnade {

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
    /// Exact count of visible (query, key) pairs, summed over batch and mask heads.
    int64_t visible_pairs = 0;
};

/// Validates the mask first: Exit::data where it is not valid.
TilePlan make_tile_plan(const ColumnMask& mask, int64_t tile_rows = 64, int64_t tile_columns = 64);

}  // namespace colonnade
