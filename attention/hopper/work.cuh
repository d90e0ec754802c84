#pragma once
// The work of a persistent CTA that keeps query rows: items (`blocks` row blocks of 64 of one head), longest first, and
// the active tiles of an item. A tile here has 64 * blocks rows and `columns` columns: `blocks` by one or two tiles of
// the plan.

#include <cstdint>
#include <type_traits>

#include "attention/hopper/warps.cuh"
#include "attention/tile_plan.h"

namespace colonnade::hopper {

/// The plan and how heads share it. Heads are processed in sections, so that the keys and values of a section stay in
/// L2 while all rows pass. Within a section entries go longest first, and the heads of an entry are neighbours.
struct Work {
    const uint32_t *active, *partial;  ///< GpuTilePlan::row_active, row_partial
    const int32_t* order;              ///< [entries], entries = sheets * row_groups
    unsigned* next;         ///< [0] the next item, [1] number of CTAs that found none; both 0 between launches
    int row_blocks, words;  ///< blocks of 64 rows; words of 32 column blocks
    int row_groups, entries;
    int mask_heads, sharing;  ///< query heads that share a mask head
    int section;              ///< heads per section, at most `sharing`
    unsigned items;
};

/// Rows of one head; head is -1 when no work is left.
struct Item {
    int first_row, head, batch, sheet;
    int tiles;  ///< active ones
};

/// The tiles of 32 column blocks as bits. A tile whose first block has bit b is active if (bits & active) has bit b,
/// and is not full if (bits >> b & masked) is not 0.
template <int columns>
struct TileBits {
    static_assert(columns == 64 || columns == 128);
    using Word = std::conditional_t<columns == 128, uint32_t, uint64_t>;
    static constexpr uint32_t active = columns == 128 ? 0x55555555u : ~0u;
    static constexpr Word masked = columns == 128 ? 2 : Word{1} << (sizeof(Word) * 4);
};

/// TileBits of an item's rows in word `w` of their maps.
template <int blocks, int columns>
__host__ __device__ inline typename TileBits<columns>::Word tile_bits(const Work& work, int sheet, int first_row,
                                                                      int w) {
    uint32_t active = 0, full = ~0u;
#pragma unroll
    for (int b = 0; b < blocks; ++b) {  // past the end the last block counts again
        const int of_item = first_row / static_cast<int>(GpuTilePlan::tile) + b,
                  block = of_item < work.row_blocks ? of_item : work.row_blocks - 1;
        const int64_t at = (static_cast<int64_t>(sheet) * work.row_blocks + block) * work.words + w;
        const uint32_t of_block = work.active[at];
        active |= of_block, full &= of_block & ~work.partial[at];
    }
    constexpr uint32_t active_bits = TileBits<columns>::active;
    if constexpr (columns == 128)
        return ((active | active >> 1) & active_bits) | (~(full & full >> 1) & active_bits) << 1;
    else
        return static_cast<uint64_t>(~full) << 32 | active;
}

/// A whole warp takes the next item from the counter.
template <int blocks, int columns>
__device__ inline Item next_item(const Work& work) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    unsigned index = 0;
    if (lane == 0) index = atomicAdd(work.next, 1u);
    index = __shfl_sync(whole_warp, index, 0);
    if (index >= work.items) {
        if (lane == 0) {
            __threadfence();
            if (atomicAdd(work.next + 1, 1u) == gridDim.x - 1) work.next[0] = work.next[1] = 0;
        }
        return {.first_row = 0, .head = -1, .batch = 0, .sheet = 0, .tiles = 0};
    }
    const unsigned per_section = static_cast<unsigned>(work.entries) * static_cast<unsigned>(work.section);
    const int first_head = static_cast<int>(index / per_section) * work.section,
              heads = min(work.section, work.sharing - first_head), within = static_cast<int>(index % per_section);
    const int entry = work.order[within / heads], sheet = entry / work.row_groups;
    Item item{.first_row = entry % work.row_groups * blocks * static_cast<int>(GpuTilePlan::tile),
              .head = sheet % work.mask_heads * work.sharing + first_head + within % heads,
              .batch = sheet / work.mask_heads,
              .sheet = sheet,
              .tiles = 0};
#pragma unroll 1
    for (int w = lane; w < work.words; w += 32)
        item.tiles += __popc(static_cast<uint32_t>(tile_bits<blocks, columns>(work, sheet, item.first_row, w)) &
                             TileBits<columns>::active);
    item.tiles = __reduce_add_sync(whole_warp, item.tiles);
    return item;
}

/// A whole warp visits the item's tiles from the last columns to the first: visit(first_column, masked).
template <int blocks, int columns, typename Visit>
__device__ __forceinline__ void for_each_tile(const Work& work, const Item& item, Visit&& visit) {
    using Bits = TileBits<columns>;
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (item.tiles == 0) return;
    for (int last = work.words - 1; last >= 0; last -= 32) {  // lane l has word last - l
        typename Bits::Word own = 0;
        if (last >= lane) own = tile_bits<blocks, columns>(work, item.sheet, item.first_row, last - lane);
        for (unsigned lanes = __ballot_sync(whole_warp, (own & Bits::active) != 0); lanes != 0; lanes &= lanes - 1) {
            const int from = __ffs(static_cast<int>(lanes)) - 1;
            const typename Bits::Word bits = __shfl_sync(whole_warp, own, from);
            for (uint32_t active = static_cast<uint32_t>(bits) & Bits::active; active != 0;) {
                const int bit = 31 - __clz(static_cast<int>(active));
                active ^= 1u << bit;
                visit(((last - from) * 32 + bit) * GpuTilePlan::tile, (bits >> bit & Bits::masked) != 0);
            }
        }
    }
}

}  // namespace colonnade::hopper
