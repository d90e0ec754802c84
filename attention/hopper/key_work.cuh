#pragma once
// The work of a persistent CTA of Hopper's backward: items (128 keys of one key/value head) and the active blocks of
// query rows of an item.

#include <algorithm>

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
    const int32_t *column_order, *longest_columns, *last_column_order;
    int column_blocks, row_blocks;
    int column_words, row_words;  ///< per column block, per row block
    int padded_columns;
};

/// Parts of FlashMaskBackward::scratch; the first three by [batch, heads, row_blocks]. Wide heads have no sums and
/// tickets.
struct BackwardScratch {
    float* statistics;        ///< [128]: lse * log2(e), +inf for rows that see nothing or do not exist; then delta
    float* sums;              ///< [head_dim / 64, 4096]: dQ / scale, see backward_maps.h
    uint32_t* tickets;        ///< number of items that have added to the sums
    float* piece_sums;        ///< [most_cut_items, 2 warpgroups, ...]: dK and dV of the pieces that are done
    uint32_t* piece_tickets;  ///< [most_cut_items, 2]: number of pieces that have added to them
    unsigned* next;           ///< index of the next item, one counter per kernel
};

struct BackwardProblem {
    BackwardPlan plan;
    Schedule schedule;
    BackwardScratch scratch;
    int rows, columns, heads, kv_heads, mask_heads;
    int group, heads_per_mask;  ///< query heads per key/value head, per mask head
    int heads_of_map;           ///< query heads of a group that share a map of an item: all of them, or one
    bool causal, deterministic;
    float scale;
    const int* positions;  ///< GpuTilePlan::positions; null if the mask has no window of positions
    int window;            ///< of the positions

    __device__ int sheet_of(int batch, int head) const { return batch * mask_heads + head / heads_per_mask; }
    /// Index of a block of rows in the parts of scratch, which have 512 bytes or more for each.
    __device__ uint32_t block_index(int batch, int head, int block) const {
        return static_cast<uint32_t>((batch * heads + head) * plan.row_blocks + block);
    }
};

struct BackwardMaps {
    CUtensorMap q, k, v, dout, dk, dv;
};

/// Which piece an item is.
struct Piece {
    int8_t entry = -1;  ///< among those that are cut; -1: the item is whole
    uint8_t sums = 0;   ///< index in piece_sums
    uint8_t turn = 0;   ///< number of pieces with slots before it
    bool last = true;   ///< no piece with slots comes after it
};

/// A pair of column blocks (128 keys) of one key/value head, or a piece of it; kv_head is -1 when no work is left.
struct alignas(16) BackwardItem {
    int batch = 0, kv_head = -1, block_pair = 0;
    int slots = 0;                     ///< active blocks of rows, over all query heads of the group
    int first_word = 0, end_word = 0;  ///< words of the item that hold them; none if there are no slots
    Piece piece{};
};

/// A block of rows as the consumers see it. Bits of `tiles`: 0 and 1, the tiles of the item's first and second 64 keys
/// are active; 2 and 3, they are partial.
struct alignas(16) Slot {
    int tiles, first_row, sheet;
};

/// CTAs of a launch: one per multiprocessor, unless there are fewer items and pieces of items.
inline unsigned grid_of(const Schedule& schedule, int multiprocessors) {
    return static_cast<unsigned>(
        std::min<uint64_t>(uint64_t{schedule.items()} * most_pieces, static_cast<uint64_t>(multiprocessors)));
}

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
    __device__ uint32_t blocks() const { return active[0] | active[1]; }
    /// Slot::tiles of a block of rows.
    __device__ int tiles(int bit) const {
        return static_cast<int>((active[0] >> bit & 1) | (active[1] >> bit & 1) << 1 | (partial[0] >> bit & 1) << 2 |
                                (partial[1] >> bit & 1) << 3);
    }
};

/// Number of heads in a section of the schedule.
__device__ inline int section_of(const BackwardProblem& p) {
    return p.schedule.last_order ? p.schedule.section
                                 : heads_at_once(p.schedule, p.plan.column_lags[0], p.plan.column_lags[1], gridDim.x);
}

/// The (sheet, block pair) entries whose items are cut: the first ones of column_order.
struct CutEntries {
    int entries, words;  ///< words of a piece

    __device__ explicit CutEntries(const BackwardProblem& p) {
        const Cut cut = cut_of({.slots = p.plan.column_lags[1],
                                .group = p.group,
                                .heads_per_mask = p.heads_per_mask,
                                .sheets = p.schedule.sheets,
                                .kv_heads = p.schedule.kv_heads,
                                .section = p.schedule.section,
                                .column_words = p.plan.column_words});
        const int lane = static_cast<int>(threadIdx.x % 32);
        const int slots = lane < cut.entries ? p.plan.longest_columns[lane] : 0;
        const bool is_cut = static_cast<int64_t>(slots) * p.group > cut.longest_item;
        entries = __popc(__ballot_sync(whole_warp, is_cut)), words = cut.words;
    }

    /// Lane l of a warp gets the l-th entry, or a negative number.
    __device__ int of_lane(const BackwardProblem& p) const {
        const int lane = static_cast<int>(threadIdx.x % 32);
        return lane < entries ? __ldg(p.plan.column_order + lane) : -1;
    }
    __device__ bool contain(const BackwardProblem& p, const Scheduled& x) const {
        const int entry = x.sheet * p.schedule.block_pairs + x.block_pair;
        return entries > 0 && __any_sync(whole_warp, of_lane(p) == entry);
    }
    /// The pairs of a sheet that are cut, in the lane's word. Those before an item are its entries before `own`.
    __device__ CutPairs in_word(const BackwardProblem& p, int sheet, int word, int own) const {
        CutPairs cut;
        if (entries == 0) return cut;
        const int pair_of_lane = of_lane(p) - sheet * p.schedule.block_pairs;
        for (int i = 0; i < entries; ++i) {
            const int pair = __shfl_sync(whole_warp, pair_of_lane, i);
            if (pair < 0 || pair >= p.schedule.block_pairs || pair / 16 != word) continue;
            const uint32_t bit = 1u << 2 * (pair % 16);
            cut.all |= bit;
            if (i < own) cut.before |= bit;
        }
        return cut;
    }
};

/// Bits of the active blocks of rows of an item in word `w` of the maps of a query head.
__device__ inline uint32_t rows_of_item(const BackwardProblem& p, const BackwardItem& item, int head, int w) {
    const PairBits bits(p, p.sheet_of(item.batch, head), item.block_pair, w);
    return bits.blocks();
}

/// A whole warp counts the slots of an item.
__device__ inline void count_slots(const BackwardProblem& p, BackwardItem& item) {
    item.end_word = p.group / p.heads_of_map * p.plan.column_words;
    for (int head = item.kv_head * p.group; head < (item.kv_head + 1) * p.group; head += p.heads_of_map)
        for (int w = static_cast<int>(threadIdx.x % 32); w < p.plan.column_words; w += 32)
            item.slots += p.heads_of_map * __popc(rows_of_item(p, item, head, w));
    item.slots = __reduce_add_sync(whole_warp, item.slots);
    if (item.slots == 0) item.end_word = 0;
}

/// The same for a piece. Pieces without slots have no turn.
__device__ inline void count_slots(const BackwardProblem& p, const CutEntries& cut, int piece, BackwardItem& item) {
    item.first_word = piece * cut.words;
    item.end_word = min(item.first_word + cut.words, p.group * p.plan.column_words);
    uint32_t pieces = 0;  // those with slots
    for (int h = 0; h < p.group; ++h)
        for (int w = static_cast<int>(threadIdx.x % 32); w < p.plan.column_words; w += 32) {
            const int slots = __popc(rows_of_item(p, item, item.kv_head * p.group + h, w)),
                      of = (h * p.plan.column_words + w) / cut.words;
            if (slots > 0) pieces |= 1u << of;
            if (of == piece) item.slots += slots;
        }
    item.slots = __reduce_add_sync(whole_warp, item.slots);
    pieces = __reduce_or_sync(whole_warp, pieces);
    item.piece.turn = static_cast<uint8_t>(__popc(pieces & ((1u << piece) - 1)));
    item.piece.last = pieces >> piece == 1;
}

/// A whole warp takes the next item from the counter.
__device__ inline BackwardItem next_backward_item(const BackwardProblem& p, const CutEntries& cut, int section) {
    const int kv_heads = p.schedule.kv_heads, pairs = p.schedule.block_pairs;
    for (;;) {
        unsigned index = 0;
        if (threadIdx.x % 32 == 0) index = atomicAdd(p.scratch.next, 1u);
        index = __shfl_sync(whole_warp, index, 0);
        const bool whole = index < p.schedule.items();
        Scheduled x{};
        ScheduledPiece piece{};
        if (whole) {
            x = scheduled(p.schedule, section, index);
            if (cut.contain(p, x)) continue;
        } else {
            index -= p.schedule.items();
            const int pieces = pieces_of(p.group * p.plan.column_words, cut.words);
            if (index >= static_cast<unsigned>(cut.entries * kv_heads * pieces)) return {};
            piece = scheduled_piece(index, cut.entries, kv_heads);
            const int entry = p.plan.column_order[piece.entry];
            x = {.sheet = entry / pairs, .block_pair = entry % pairs, .kv_head = piece.kv_head};
        }
        // A key/value head belongs to the mask head of its first query head.
        const int mask_head = x.sheet % p.mask_heads,
                  kv_head = (mask_head * p.heads_per_mask + p.group - 1) / p.group + x.kv_head;
        if (kv_head >= p.kv_heads || kv_head * p.group >= (mask_head + 1) * p.heads_per_mask) continue;
        BackwardItem item{.batch = x.sheet / p.mask_heads, .kv_head = kv_head, .block_pair = x.block_pair};
        if (whole) {
            count_slots(p, item);
            return item;
        }
        item.piece.entry = static_cast<int8_t>(piece.entry);
        item.piece.sums = static_cast<uint8_t>(piece.entry * kv_heads + piece.kv_head);
        count_slots(p, cut, piece.piece, item);
        if (item.slots > 0) return item;
    }
}

/// A whole warp visits the active blocks of rows of an item in ascending order, head by head: visit(head, block, Slot).
/// In turn those come first, for all heads, that the pair before has too: its items wait for them. An item whose columns
/// end a document and begin the next one would otherwise add to the rows of the first, for its second head, only after
/// all rows of the next.
template <bool with_tiles, typename Visit>
__device__ __forceinline__ void for_each_slot(const BackwardProblem& p, const BackwardItem& item, Visit&& visit) {
    const int lane = static_cast<int>(threadIdx.x % 32), words = p.plan.column_words,
              heads = item.piece.entry < 0 ? p.heads_of_map : 1;
    for (int at = item.first_word; at < item.end_word;) {  // up to 32 words of one map
        const int first_head = item.kv_head * p.group + at / words * heads, first = at % words,
                  sheet = p.sheet_of(item.batch, first_head), count = min(min(item.end_word - at, words - first), 32);
        at += count;
        const int word = lane < count ? first + lane : words;
        const PairBits bits(p, sheet, item.block_pair, word);
        const uint32_t blocks = bits.blocks();
        uint32_t part = blocks;
        if (p.deterministic && item.block_pair > 0) part &= PairBits(p, sheet, item.block_pair - 1, word).blocks();
#pragma unroll 1
        for (int h = -heads; h < heads; ++h) {
            if (h == 0) part ^= blocks;
            const int head = first_head + (h < 0 ? h + heads : h);  // -heads to -1: the first part of each
            for (unsigned lanes = __ballot_sync(whole_warp, part != 0); lanes != 0; lanes &= lanes - 1) {
                const int from = __ffs(static_cast<int>(lanes)) - 1;
                for (uint32_t rest = __shfl_sync(whole_warp, part, from); rest != 0; rest &= rest - 1) {
                    const int bit = __ffs(static_cast<int>(rest)) - 1, block = (first + from) * 32 + bit;
                    Slot slot{0, block * block_rows, sheet};
                    if constexpr (with_tiles) slot.tiles = __shfl_sync(whole_warp, bits.tiles(bit), from);
                    visit(head, block, slot);
                }
            }
        }
    }
}

#endif

}  // namespace colonnade::hopper
