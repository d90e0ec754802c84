#pragma once
// The element mask of a partial tile as bits, 1 for hidden: how the feeding side makes them, and how they reach the
// threads whose scores they hide. A warpgroup has 64 rows x 128 columns (1 KiB) or 64 columns.
//
// In shared memory a word holds 32 rows of one column: bit b of word (4 h + i) * columns / 4 + 2 j + e is row 32 h + b
// of column 8 j + 2 i + e. A thread needs rows instead: rows g = lane / 4 and g + 8 of its warp's sixteen, columns 8 j
// + 2 (lane % 4) + e. For eight of the rows, a warp starts with lane 2 j + e holding four columns and ends with every
// lane holding one row (128 columns):
//
//     before: lane 2 j + e                          after: lane 4 g + i
//     byte 0  rows 0 .. 7 of column 8 j + e         columns 8 j + 2 i + e of row g, one bit for each j and e
//     byte 1  rows 0 .. 7 of column 8 j + 2 + e     (mask_score() gives their order)
//     byte 2  rows 0 .. 7 of column 8 j + 4 + e
//     byte 3  rows 0 .. 7 of column 8 j + 6 + e
//
// This transposes a bit matrix in five steps (Warren, Hacker's Delight, 7-3). A bit has a 5-bit lane number and a 5-bit
// position in its word; each step swaps one bit of the first with one bit of the second. Masking a score then takes one
// test of a bit, whatever ranges and rules hide it.
//
// With 128 columns all 32 lanes are in use, and the two rows of a thread are exchanged one after the other. With 64
// columns lanes 16 to 31 hold rows 8 to 15, and one exchange brings both rows of a thread in one word.

#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade::hopper {

/// Words of a warpgroup in shared memory; lanes that hold one row of `columns`; words of a thread.
COLONNADE_HOST_DEVICE constexpr int mask_words(int columns) {
    return 2 * columns;
}
COLONNADE_HOST_DEVICE constexpr int mask_lanes(int columns) {
    return columns / 4;
}
COLONNADE_HOST_DEVICE constexpr int mask_words_of_thread(int columns) {
    return columns / 64;
}

/// Hidden rows of one column in a tile of at most 192 rows: two ranges, and the rows that the causal rule hides.
struct HiddenRows {
    uint32_t ranges;  ///< begin, end, begin, end from the tile's first row, one byte each

    /// Bounds as in GpuTilePlan.
    COLONNADE_HOST_DEVICE HiddenRows(int lts, int lte, int uts, int ute, int first_row)
        : ranges(clamp(lts, first_row) | clamp(lte, first_row) << 8 | clamp(uts, first_row) << 16 |
                 clamp(ute, first_row) << 24) {}

    /// Bits of the hidden rows among rows first .. first + 31 of the tile. Rows before `causal_end` are hidden as well.
    COLONNADE_HOST_DEVICE uint32_t word(int first, int causal_end) const {
        return rows(byte(0), byte(1), first) | rows(byte(2), byte(3), first) |
               ones(0, causal_end > first ? causal_end - first : 0);
    }

    /// A word with bits [begin, begin + count) set, as far as it has them.
    COLONNADE_HOST_DEVICE static uint32_t ones(uint32_t begin, uint32_t count) {
#if defined(__CUDA_ARCH__)
        uint32_t r;
        asm("bmsk.clamp.b32 %0, %1, %2;" : "=r"(r) : "r"(begin), "r"(count));
        return r;
#else
        return begin > 31 ? 0 : (count > 31 ? ~0u : (1u << count) - 1) << begin;
#endif
    }

  private:
    COLONNADE_HOST_DEVICE static uint32_t clamp(int row, int first_row) {
        const int from = (row > first_row ? row : first_row) - first_row;
        return static_cast<uint32_t>(from < 255 ? from : 255);
    }
    COLONNADE_HOST_DEVICE int byte(int i) const {
        return static_cast<int>(ranges >> 8 * i & 255);
    }
    COLONNADE_HOST_DEVICE static uint32_t rows(int begin, int end, int first) {
        const int from = begin > first ? begin : first;
        return ones(static_cast<uint32_t>(from - first), static_cast<uint32_t>(end > from ? end - from : 0));
    }
};

/// Bits of the rows of a run whose position is `limit` or more, among 32 rows of a tile. The run has bits begin .. end -
/// 1; its positions rise by one from `position` on.
COLONNADE_HOST_DEVICE inline uint32_t past_window(int begin, int end, int position, int limit) {
    const int first_past = limit - position + begin, from = begin > first_past ? begin : first_past;
    return HiddenRows::ones(static_cast<uint32_t>(from), static_cast<uint32_t>(end > from ? end - from : 0));
}

/// The initial word `n` of a lane: the warp's rows 8 half .. 8 half + 7 of its four columns, half = n or, with 64
/// columns, lane / 16.
template <int columns>
COLONNADE_HOST_DEVICE inline uint32_t mask_begin(const uint32_t* words, int warp, int n, int lane) {
    constexpr int lanes = mask_lanes(columns);
    const int half = lanes == 32 ? n : lane / lanes;
    uint32_t x = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t column = words[(warp / 2 * 4 + i) * lanes + lane % lanes];
        x |= (column >> (warp % 2 * 16 + 8 * half) & 255) << 8 * i;
    }
    return x;
}

/// A step: lanes whose numbers differ in bit `lanes` exchange half of their words, the bits whose positions differ in
/// `shift`.
struct MaskStep {
    int lanes, shift;
    COLONNADE_HOST_DEVICE constexpr explicit MaskStep(int n) : lanes(1 << n), shift(1 << (n < 2 ? n + 3 : n - 2)) {}
};
constexpr int mask_steps = 5;
COLONNADE_HOST_DEVICE inline uint32_t mask_step(uint32_t mine, uint32_t other, MaskStep step, int lane) {
    const bool upper = (lane & step.lanes) != 0;
    const uint32_t lows = ~0u / ((1u << step.shift) + 1);  // bits whose position lacks `shift`
    uint32_t kept = upper ? ~lows : lows;
#if defined(__CUDA_ARCH__)
    asm("" : "+r"(kept));  // makes ptxas use one bitwise selection instead of two masks
#endif
    const int turn = upper ? 32 - step.shift : step.shift;
    return (mine & kept) | ((other << turn | other >> (32 - turn)) & ~kept);
}

/// The score that a bit of word `n` belongs to after the steps: 4 j + 2 r + e for column 8 j + 2 (lane % 4) + e of row
/// g + 8 r.
template <int columns>
COLONNADE_HOST_DEVICE constexpr int mask_score(int n, int bit) {
    return mask_lanes(columns) == 32 ? 8 * (bit % 8) + 4 * (bit / 16) + bit / 8 % 2 + 2 * n
                                     : 8 * (bit % 4) + 4 * (bit / 16) + bit / 8 % 2 + 2 * (bit / 4 % 2);
}

}  // namespace colonnade::hopper
