#pragma once
// In which order CTAs of Hopper's backward take their items, and in which they add to sums of dQ where these are to be
// deterministic; for device and host alike. tests/attention/hopper/hopper_backward_schedule_test.cpp plays it.
//
// An item is a pair of column blocks of a slice, and one of the slice's key/value heads. Heads come in sections, within
// which the heads of a pair are neighbours.

#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade::hopper {

struct Schedule {
    /// Entries slice * pairs + pair, longest first: what a section goes through. Null: items add in turn, a section is of
    /// heads of any slices, and goes through their pairs from the last to the first.
    const int32_t* order;
    int pairs, slices, kv_heads;  ///< kv_heads of a slice
    int section;                  ///< heads, where there is an order; else see heads_at_once()

    COLONNADE_HOST_DEVICE unsigned items() const { return static_cast<unsigned>(pairs) * slices * kv_heads; }
};
struct Scheduled {
    int slice, pair, kv_head;  ///< kv_head of the slice
};
COLONNADE_HOST_DEVICE inline Scheduled scheduled(const Schedule& s, int section, unsigned index) {
    const int entries = s.pairs * (s.order ? s.slices : 1), all_heads = s.kv_heads * (s.order ? 1 : s.slices);
    const unsigned per_section = static_cast<unsigned>(entries) * section;
    const int first = static_cast<int>(index / per_section) * section, left = all_heads - first,
              heads = left < section ? left : section;
    const int within = static_cast<int>(index % per_section), nth = within / heads, head = first + within % heads;
    if (!s.order) return {head / s.kv_heads, s.pairs - 1 - nth, head % s.kv_heads};
    const int entry = s.order[nth];
    return {entry / s.pairs, entry % s.pairs, head};
}

// --- In turn ----------------------------------------------------------------------------------------------------------

/// Pairs of column blocks after `pair`, in one word of a row block's map, that are active: their number over all words is
/// the pair's turn at the rows.
COLONNADE_HOST_DEVICE inline uint32_t later_pairs(uint32_t active, int word, int pair) {
    const uint32_t pairs = (active | active >> 1) & 0x55555555u;
    if (word != pair / 16) return word > pair / 16 ? pairs : 0;
    return pair % 16 == 15 ? 0 : pairs & ~0u << (2 * (pair % 16) + 2);
}

/// An item's lag: how many slots it must begin after the one of the next pair, which is before it in turn, so that it
/// never waits for that one. Both go down their active row blocks, a slot each, and an addition takes another. This is the
/// lag over the row blocks of one word of the pairs' column maps, 0 if they share none; it is the most over all words.
/// `ahead`: slots of the next pair before the word, less the item's own.
COLONNADE_HOST_DEVICE inline int lag_in_word(uint32_t own, uint32_t next, int ahead) {
    int lag = 0;
    for (int bit = 0; bit < 32; ++bit) {
        const int in_own = own >> bit & 1, in_next = next >> bit & 1;
        if (in_own && in_next && ahead >= lag) lag = ahead + 1;
        ahead += in_next - in_own;
    }
    return lag;
}

/// Heads of a section where items add in turn: so few that their lags, one head beside the other, take half the time in
/// which `ctas` do their slots; rounded to sections of one size. One where nothing lags: the fewer heads, the more of what
/// they read and add to stays in L2. `lags` and `slots` are sums over the pairs of all slices.
COLONNADE_HOST_DEVICE inline int heads_at_once(const Schedule& s, int64_t lags, int64_t slots, int64_t ctas) {
    const int64_t heads = int64_t{s.slices} * s.kv_heads, wanted = lags > 0 ? (2 * ctas * lags + slots - 1) / slots : 1,
                  sections = wanted < heads ? (heads + wanted / 2) / wanted : 1;
    return static_cast<int>((heads + sections - 1) / sections);
}

}  // namespace colonnade::hopper
