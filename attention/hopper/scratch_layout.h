#pragma once
// The scratch of Hopper's backward. Plain host code, so that a build without CUDA can plan the memory of a GPU.

#include "attention/hopper/backward_maps.h"
#include "attention/hopper/backward_schedule.h"
#include "attention/tile_plan.h"

namespace colonnade::hopper {

constexpr int block_rows = GpuTilePlan::tile;
/// Statistics of a block of 64 rows: lse * log2(e) of each row, then delta of each row.
constexpr int statistics_of_block = 2 * block_rows;

constexpr int wide_head_dim = 256;
/// Item counters of the passes of wide heads in scratch, 0 before their launches.
constexpr int wide_counters = 4;

/// Tickets of the pieces of items, one per warpgroup; a pass over keys has its own.
constexpr int piece_tickets = 2 * most_cut_items;

inline bool has_kernel(int64_t head_dim) {
    return head_dim == 64 || head_dim == 128 || head_dim == wide_head_dim;
}

/// Offsets of the parts of scratch, in floats. Passes of wide heads have one gradient each, so they share the sums of
/// pieces.
struct ScratchLayout {
    int64_t blocks, summed, slabs, of_item, counters, passes;

    ScratchLayout(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim)
        : blocks(batch * heads * ((rows + block_rows - 1) / block_rows)),
          summed(head_dim == wide_head_dim ? 0 : blocks),
          slabs(head_dim / 64),
          of_item(2 * GpuTilePlan::tile * head_dim * (head_dim == wide_head_dim ? 1 : 2)),
          counters(head_dim == wide_head_dim ? wide_counters : 1),
          passes(head_dim == wide_head_dim ? 2 : 1) {}
    int64_t sums() const { return blocks * statistics_of_block; }
    int64_t piece_sums() const { return sums() + summed * slabs * sum_block; }
    int64_t tickets() const { return piece_sums() + most_cut_items * of_item; }
    int64_t next() const { return tickets() + summed; }
    /// Counters and tickets of pieces, one after the other.
    int64_t cleared() const { return counters + passes * piece_tickets; }
    int64_t floats() const { return next() + cleared(); }
};

}  // namespace colonnade::hopper
