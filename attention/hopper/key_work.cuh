#pragma once
// The work of a persistent CTA of Hopper's backward: items (128 keys of one key/value head) and the active blocks of
// query rows of an item.

#include "attention/hopper/backward_schedule.h"
#include "attention/hopper/scratch_layout.h"
#include "attention/hopper/warps.cuh"

namespace colonnade::hopper {

constexpr int item_columns = 2 * GpuTilePlan::tile;

/// A GpuTilePlan in pointers.
struct BackwardPlan {
    const uint32_t *column_active, *column_partial, *row_active;
    const int4* bounds;
    const int64_t* column_lags;
    int column_blocks, row_blocks;
    int column_words, row_words;  ///< per column block, per row block
    int padded_columns;
};

/// Parts of FlashMaskBackward::scratch; the first three by [batch, heads, row_blocks]. Wide heads have no sums and
/// tickets.
struct BackwardScratch {
    float* statistics;  ///< [128]: lse * log2(e), +inf for rows that see nothing or do not exist; then delta
    float* sums;        ///< [head_dim / 64, 4096]: dQ / scale, see backward_maps.h
    uint32_t* tickets;  ///< number of items that have added to the sums
    unsigned* next;     ///< index of the next item, one counter per kernel
};

struct BackwardProblem {
    BackwardPlan plan;
    Schedule schedule;
    BackwardScratch scratch;
    int rows, columns, heads, kv_heads, mask_heads;
    int group, heads_per_mask;  ///< query heads per key/value head, per mask head
    bool causal, deterministic;
    float scale;

    __device__ int sheet_of(int batch, int head) const { return batch * mask_heads + head / heads_per_mask; }
    /// Index of a block of rows in the parts of scratch.
    __device__ int64_t block_index(int batch, int head, int block) const {
        return (static_cast<int64_t>(batch) * heads + head) * plan.row_blocks + block;
    }
};

struct BackwardMaps {
    CUtensorMap q, k, v, dout, dk, dv;
};

/// A pair of column blocks (128 keys) of one key/value head; kv_head is -1 when no work is left.
struct BackwardItem {
    int batch, kv_head, block_pair;
    int slots;  ///< active blocks of rows, over all query heads of the group
};

/// A block of rows as the consumers see it. Bits of `tiles`: 0 and 1, the tiles of the item's first and second 64 keys
/// are active; 2 and 3, they are partial.
struct alignas(16) Slot {
    int tiles, first_row, sheet;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Word `w` of the maps of an item's two column blocks.
struct PairBits {
    uint32_t active[2] = {0, 0}, partial[2] = {0, 0};

    __device__ PairBits(const BackwardProblem& p, int sheet, int block_pair, int w) {
        if (w >= p.plan.column_words) return;
        for (int i = 0; i < 2; ++i) {
            if (2 * block_pair + i >= p.plan.column_blocks) return;
            const int64_t at =
                (static_cast<int64_t>(sheet) * p.plan.column_blocks + 2 * block_pair + i) * p.plan.column_words + w;
            active[i] = p.plan.column_active[at], partial[i] = p.plan.column_partial[at];
        }
    }
};

/// Number of heads in a section of the schedule.
__device__ inline int section_of(const BackwardProblem& p) {
    return p.deterministic ? heads_at_once(p.schedule, p.plan.column_lags[0], p.plan.column_lags[1], gridDim.x)
                           : p.schedule.section;
}

/// A whole warp takes the next item from the counter.
__device__ inline BackwardItem next_backward_item(const BackwardProblem& p, int section) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (;;) {
        unsigned index = 0;
        if (lane == 0) index = atomicAdd(p.scratch.next, 1u);
        index = __shfl_sync(whole_warp, index, 0);
        if (index >= p.schedule.items()) return {.batch = 0, .kv_head = -1, .block_pair = 0, .slots = 0};
        const Scheduled x = scheduled(p.schedule, section, index);
        // A key/value head belongs to the mask head of its first query head.
        const int mask_head = x.sheet % p.mask_heads,
                  kv_head = (mask_head * p.heads_per_mask + p.group - 1) / p.group + x.kv_head;
        if (kv_head >= p.kv_heads || kv_head * p.group >= (mask_head + 1) * p.heads_per_mask) continue;
        BackwardItem item{.batch = x.sheet / p.mask_heads, .kv_head = kv_head, .block_pair = x.block_pair, .slots = 0};
        for (int head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head)
            for (int w = lane; w < p.plan.column_words; w += 32) {
                const PairBits bits(p, p.sheet_of(item.batch, head), item.block_pair, w);
                item.slots += __popc(bits.active[0] | bits.active[1]);
            }
        item.slots = __reduce_add_sync(whole_warp, item.slots);
        return item;
    }
}

/// A whole warp visits the active blocks of rows of an item, head by head, in ascending order: visit(head, block,
/// Slot).
template <typename Visit>
__device__ __forceinline__ void for_each_slot(const BackwardProblem& p, const BackwardItem& item, Visit&& visit) {
    if (item.slots == 0) return;
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int head = item.kv_head * p.group; head < (item.kv_head + 1) * p.group; ++head) {
        const int sheet = p.sheet_of(item.batch, head);
        for (int first = 0; first < p.plan.column_words; first += 32) {
            const PairBits bits(p, sheet, item.block_pair, first + lane);
            for (unsigned lanes = __ballot_sync(whole_warp, (bits.active[0] | bits.active[1]) != 0); lanes != 0;
                 lanes &= lanes - 1) {
                const int from = __ffs(static_cast<int>(lanes)) - 1;
                const uint32_t active[2] = {__shfl_sync(whole_warp, bits.active[0], from),
                                            __shfl_sync(whole_warp, bits.active[1], from)},
                               partial[2] = {__shfl_sync(whole_warp, bits.partial[0], from),
                                             __shfl_sync(whole_warp, bits.partial[1], from)};
                for (uint32_t rest = active[0] | active[1]; rest != 0; rest &= rest - 1) {
                    const int bit = __ffs(static_cast<int>(rest)) - 1, block = (first + from) * 32 + bit;
                    const uint32_t tiles = (active[0] >> bit & 1) | (active[1] >> bit & 1) << 1 |
                                           (partial[0] >> bit & 1) << 2 | (partial[1] >> bit & 1) << 3;
                    visit(head, block, Slot{static_cast<int>(tiles), block * block_rows, sheet});
                }
            }
        }
    }
}

#endif

}  // namespace colonnade::hopper
