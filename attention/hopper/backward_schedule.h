#pragma once
// The order in which CTAs of Hopper's backward take items and, if sums of dQ must be deterministic, add to them; for
// device and host. tests/attention/hopper/hopper_backward_schedule_test.cpp simulates it.
//
// An item is a pair of column blocks of a sheet and one of the sheet's key/value heads. A sheet is one (batch, mask
// head). Items go from the first pair of a head to the last, one head after the other, so that items that run at the
// same time share rows in L2. In the last sheet, whose items end the launch, some heads go side by side, longest item
// first. Items that would outlast all others are cut into pieces, which come last. Items that add in turn go from the
// last pair of a head to the first, some heads of any sheets side by side.

#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade::hopper {

/// Heads that the last sheet has side by side: their Q, dO and sums of dQ, of one query head each, take half of L2.
constexpr int heads_in_cache(int64_t rows, int64_t head_dim, int kv_heads) {
    const int64_t fit = (int64_t{32} << 20) / (8 * (rows > 0 ? rows : 1) * head_dim);
    return static_cast<int>(fit < 1 ? 1 : fit < kv_heads ? fit : kv_heads);
}

struct Schedule {
    const int32_t* last_order;          ///< the pairs of the last sheet, longest first; null: items add in turn
    int block_pairs, sheets, kv_heads;  ///< per sheet: pairs of column blocks, key/value heads
    int section;                        ///< heads_in_cache(); in turn see heads_at_once()

    COLONNADE_HOST_DEVICE unsigned items() const { return static_cast<unsigned>(block_pairs) * sheets * kv_heads; }
};
struct Scheduled {
    int sheet, block_pair, kv_head;  ///< kv_head within the sheet
};
COLONNADE_HOST_DEVICE inline Scheduled scheduled(const Schedule& s, int section, unsigned index) {
    const auto pairs = static_cast<unsigned>(s.block_pairs);
    const unsigned alone = s.last_order ? pairs * (s.sheets - 1) * s.kv_heads : 0;  // items of heads one by one
    if (index < alone) {
        const int head = static_cast<int>(index / pairs);
        return {head / s.kv_heads, static_cast<int>(index % pairs), head % s.kv_heads};
    }
    index -= alone;
    const unsigned of_section = pairs * section;
    const int first = static_cast<int>(index / of_section) * section,
              left = s.kv_heads * (s.last_order ? 1 : s.sheets) - first, heads = left < section ? left : section,
              within = static_cast<int>(index % of_section), nth = within / heads, head = first + within % heads;
    if (s.last_order) return {s.sheets - 1, s.last_order[nth], head};
    return {head / s.kv_heads, s.block_pairs - 1 - nth, head % s.kv_heads};
}

// --- Pieces ----------------------------------------------------------------------------------------------------------
// A slot is an active block of rows of one query head. An item of a column that most rows see, such as the stem of a
// tree, may have more slots than a CTA's share of all. The words of an item are those of its pair's column maps, one
// map per query head of the group. A piece has the slots of some consecutive words. CTAs add dK and dV of an item's
// pieces in the order of the pieces.

constexpr int most_pieces = 32;       ///< of an item: a bit each
constexpr int most_cut_entries = 32;  ///< (sheet, block pair): a lane each
constexpr int most_cut_items = 64;    ///< entries times key/value heads: dK and dV in scratch each
/// CTAs that the cut is made for, instead of those of the GPU at hand, so that all GPUs give the same bits.
constexpr int cut_ctas = 132;

struct CutSizes {
    int64_t slots;              ///< of all pairs and sheets, one query head each
    int group, heads_per_mask;  ///< query heads per key/value head, per sheet
    int sheets, kv_heads;       ///< key/value heads per sheet
    int section;                ///< Schedule::section
    int column_words;           ///< words of a column's map
};
struct Cut {
    int64_t longest_item;  ///< slots; longer items are cut
    int entries;           ///< at most so many, the longest ones
    int words;             ///< of a piece
};
/// Number of pieces of an item.
COLONNADE_HOST_DEVICE inline int pieces_of(int words_of_item, int words_of_piece) {
    return (words_of_item + words_of_piece - 1) / words_of_piece;
}
/// The items of a section start longest first, while those before it still run. So the longest items of the last section
/// outlast the others by the slots that they have more than a CTA's share of a section. They are cut if that is more than
/// an eighth of its share of all. A piece has about that eighth, in whole words.
COLONNADE_HOST_DEVICE inline Cut cut_of(const CutSizes& s) {
    const auto max = [](int64_t a, int64_t b) { return a > b ? a : b; };
    const auto min = [](int64_t a, int64_t b) { return a < b ? a : b; };
    const int64_t share = s.slots * s.heads_per_mask / cut_ctas, eighth = share / 8,
                  all_words = int64_t{s.group} * s.column_words,
                  fewest_words = max((all_words + most_pieces - 1) / most_pieces, 1),
                  words = min(max(eighth / 32, fewest_words), all_words);
    // The query heads of an item must share a sheet, because entries are cut for all heads of the sheet alike.
    const int64_t entries = words == all_words || s.heads_per_mask % s.group != 0 ? 0 : most_cut_items / s.kv_heads;
    return {.longest_item = max(share * s.section / (int64_t{s.sheets} * s.kv_heads) + eighth, 64),
            .entries = static_cast<int>(min(entries, most_cut_entries)),
            .words = static_cast<int>(words)};
}

/// The pieces of the schedule, after all whole items. Neighbours read the same rows and are pieces of different items,
/// so that few wait for each other.
struct ScheduledPiece {
    int entry, kv_head, piece;  ///< index of the entry among those cut, kv_head within the sheet
};
COLONNADE_HOST_DEVICE inline ScheduledPiece scheduled_piece(unsigned index, int entries, int kv_heads) {
    const int nth = static_cast<int>(index);
    return {nth % entries, nth / entries % kv_heads, nth / entries / kv_heads};
}

// --- In turn ---------------------------------------------------------------------------------------------------------

/// Bits of the active pairs of column blocks after `pair` in one word of a row block's map.
COLONNADE_HOST_DEVICE inline uint32_t later_pairs(uint32_t active, int word, int pair) {
    const uint32_t pairs = (active | active >> 1) & 0x55555555u;
    if (word != pair / 16) return word > pair / 16 ? pairs : 0;
    return pair % 16 == 15 ? 0 : pairs & ~0u << (2 * (pair % 16) + 2);
}
/// The lower bit of each pair that is cut, in one word: of all, and of those whose pieces come before the item's.
struct CutPairs {
    uint32_t all = 0, before = 0;
};
/// Bits of the active pairs that add to a block of rows before an item does, in one word of the block's map. Their
/// number over all words is the item's turn at these rows. Whole items go from the last pair to the first. Pieces come
/// after all of them; `pair` is then -1, which all pairs are after.
COLONNADE_HOST_DEVICE inline uint32_t earlier_pairs(uint32_t active, int word, int pair, CutPairs cut) {
    return later_pairs(active & ~(cut.all | cut.all << 1), word, pair) | ((active | active >> 1) & cut.before);
}

/// The lag of an item: the number of slots by which it must start after the item of the next pair, whose turn is
/// earlier, so that it never waits for that one. Both items go down their active row blocks, one slot per block, and an
/// addition takes another slot. Returns the lag over the row blocks of one word of the pairs' column maps, 0 if they
/// share none; the lag of the item is the maximum over all words. `ahead` is the number of slots of the next pair
/// before this word minus those of the item.
COLONNADE_HOST_DEVICE inline int lag_in_word(uint32_t own, uint32_t next, int ahead) {
    int lag = 0;
    for (int bit = 0; bit < 32; ++bit) {
        const int in_own = own >> bit & 1, in_next = next >> bit & 1;
        if (in_own && in_next && ahead >= lag) lag = ahead + 1;
        ahead += in_next - in_own;
    }
    return lag;
}

/// Number of heads per section if items add in turn. It is chosen so that the lags of the heads, side by side, take
/// half the time in which `ctas` CTAs process their slots, then rounded so that sections have one size. It is 1 if
/// nothing lags, because with fewer heads more of what they read and add to stays in L2. `lags` and `slots` are sums
/// over the pairs of all sheets.
COLONNADE_HOST_DEVICE inline int heads_at_once(const Schedule& s, int64_t lags, int64_t slots, int64_t ctas) {
    const int64_t heads = int64_t{s.sheets} * s.kv_heads, wanted = lags > 0 ? (2 * ctas * lags + slots - 1) / slots : 1,
                  sections = wanted < heads ? (heads + wanted / 2) / wanted : 1;
    return static_cast<int>((heads + sections - 1) / sections);
}

}  // namespace colonnade::hopper
