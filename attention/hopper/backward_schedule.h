#pragma once
// The order in which CTAs of Hopper's backward take items and, if sums of dQ must be deterministic, add to them; for
// device and host. tests/attention/hopper/hopper_backward_schedule_test.cpp simulates it.
//
// An item is a pair of column blocks of a sheet and one of the sheet's key/value heads. A sheet is one (batch, mask
// head). Heads are processed in sections; within a section the heads of a pair are neighbours.

#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade::hopper {

struct Schedule {
    /// The entries of a section, sheet * block_pairs + block_pair, longest first. Null: items add in turn, a section
    /// has heads of any sheets and goes through their pairs from the last to the first.
    const int32_t* order;
    int block_pairs, sheets, kv_heads;  ///< per sheet: pairs of column blocks, key/value heads
    int section;                        ///< heads per section if there is an order; otherwise see heads_at_once()

    COLONNADE_HOST_DEVICE unsigned items() const { return static_cast<unsigned>(block_pairs) * sheets * kv_heads; }
};
struct Scheduled {
    int sheet, block_pair, kv_head;  ///< kv_head within the sheet
};
COLONNADE_HOST_DEVICE inline Scheduled scheduled(const Schedule& s, int section, unsigned index) {
    const int entries = s.block_pairs * (s.order ? s.sheets : 1), all_heads = s.kv_heads * (s.order ? 1 : s.sheets);
    const unsigned per_section = static_cast<unsigned>(entries) * section;
    const int first = static_cast<int>(index / per_section) * section, left = all_heads - first,
              heads = left < section ? left : section;
    const int within = static_cast<int>(index % per_section), nth = within / heads, head = first + within % heads;
    if (!s.order) return {head / s.kv_heads, s.block_pairs - 1 - nth, head % s.kv_heads};
    const int entry = s.order[nth];
    return {entry / s.block_pairs, entry % s.block_pairs, head};
}

// --- In turn ---------------------------------------------------------------------------------------------------------

/// Bits of the active pairs of column blocks after `pair` in one word of a row block's map. Their number over all words
/// is the pair's turn at these rows.
COLONNADE_HOST_DEVICE inline uint32_t later_pairs(uint32_t active, int word, int pair) {
    const uint32_t pairs = (active | active >> 1) & 0x55555555u;
    if (word != pair / 16) return word > pair / 16 ? pairs : 0;
    return pair % 16 == 15 ? 0 : pairs & ~0u << (2 * (pair % 16) + 2);
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
