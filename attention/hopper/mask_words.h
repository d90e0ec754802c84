#pragma once
// The element mask of a partial tile as bits, 1 for hidden: how the feeding side makes them, and how they get to the
// threads whose scores they hide. By warpgroup, 64 rows x 128 columns (1 KiB) or 64.
//
// In shared memory a word holds 32 rows of a column (rows 32 h .. 32 h + 31 of the warpgroup at bits 0 ..), word
// (4 h + i) * columns / 4 + 2 j + e that of column 8 j + 2 i + e. A thread wants the transpose, of its rows g = lane / 4
// and g + 8 of its warp's sixteen the columns 8 j + 2 (lane % 4) + e: what lane 2 j + e has of eight rows and four columns,
// byte i for column 8 j + 2 i + e, is exchanged for that in five steps, as bit matrices are transposed (Warren, Hacker's
// Delight, 7-3): each swaps one bit of the lane's number with one of the place's in the word. So a score costs its test,
// whatever ranges and rules hide it.
//
// 128 columns take all lanes, and each of the two rows is exchanged on its own. Of 64 columns lanes 16 to 31 have rows 8
// to 15, and one exchange brings both rows of a thread in one word.

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

/// Hidden rows of one column in a tile of 192 rows at most: two ranges, and those before its own where the causal rule
/// hides them.
struct HiddenRows {
    uint32_t ranges;  ///< from the tile's first row on: begin, end, begin, end, a byte each

    /// Bounds as in GpuTilePlan.
    COLONNADE_HOST_DEVICE HiddenRows(int lts, int lte, int uts, int ute, int first_row)
        : ranges(clamp(lts, first_row) | clamp(lte, first_row) << 8 | clamp(uts, first_row) << 16 |
                 clamp(ute, first_row) << 24) {}

    /// Of rows first .. first + 31 of the tile; rows before `causal_end` are hidden as well.
    COLONNADE_HOST_DEVICE uint32_t word(int first, int causal_end) const {
        return rows(byte(0), byte(1), first) | rows(byte(2), byte(3), first) |
               ones(0, causal_end > first ? causal_end - first : 0);
    }

  private:
    COLONNADE_HOST_DEVICE static uint32_t clamp(int row, int first_row) {
        const int from = (row > first_row ? row : first_row) - first_row;
        return static_cast<uint32_t>(from < 255 ? from : 255);
    }
    COLONNADE_HOST_DEVICE int byte(int i) const { return static_cast<int>(ranges >> 8 * i & 255); }
    COLONNADE_HOST_DEVICE static uint32_t rows(int begin, int end, int first) {
        const int from = begin > first ? begin : first;
        return ones(static_cast<uint32_t>(from - first), static_cast<uint32_t>(end > from ? end - from : 0));
    }
    /// Bits [begin, begin + count) that a word has.
    COLONNADE_HOST_DEVICE static uint32_t ones(uint32_t begin, uint32_t count) {
#if defined(__CUDA_ARCH__)
        uint32_t r;
        asm("bmsk.clamp.b32 %0, %1, %2;" : "=r"(r) : "r"(begin), "r"(count));
        return r;
#else
        return begin > 31 ? 0 : (count > 31 ? ~0u : (1u << count) - 1) << begin;
#endif
    }
};

/// What lane `lane` of a warp begins its word `n` with: of the warp's rows 8 half .. 8 half + 7.
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

/// A step: lanes whose numbers differ by `lanes` exchange the halves of their words that `shift` tells apart.
struct MaskStep {
    int lanes, shift;
    COLONNADE_HOST_DEVICE constexpr explicit MaskStep(int n) : lanes(1 << n), shift(1 << (n < 2 ? n + 3 : n - 2)) {}
};
constexpr int mask_steps = 5;
COLONNADE_HOST_DEVICE inline uint32_t mask_step(uint32_t mine, uint32_t other, MaskStep step, int lane) {
    const bool upper = (lane & step.lanes) != 0;
    const uint32_t lows = ~0u / ((1u << step.shift) + 1);  // bits of numbers that do not have `shift`
    uint32_t kept = upper ? ~lows : lows;
#if defined(__CUDA_ARCH__)
    asm("" : "+r"(kept));  // one selection by bits, not two masks
#endif
    const int turn = upper ? 32 - step.shift : step.shift;
    return (mine & kept) | ((other << turn | other >> (32 - turn)) & ~kept);
}

/// Whose bit of word `n` it is that the steps end with: 4 j + 2 r + e for column 8 j + 2 (lane % 4) + e of row g + 8 r.
template <int columns>
COLONNADE_HOST_DEVICE constexpr int mask_score(int n, int bit) {
    return mask_lanes(columns) == 32 ? 8 * (bit % 8) + 4 * (bit / 16) + bit / 8 % 2 + 2 * n
                                     : 8 * (bit % 4) + 4 * (bit / 16) + bit / 8 % 2 + 2 * (bit / 4 % 2);
}

}  // namespace colonnade::hopper
