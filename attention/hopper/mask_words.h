#pragma once
// The element mask of one partial tile of 128 rows x 128 columns, a 32-bit word for each column, relative to the tile's
// first row: its hidden rows are [byte 0, byte 1) and [byte 2, byte 3), every byte in 0 .. 128. For row r, all four
// comparisons are one subtraction: byte i of 0x80808080 + 0x01010101 r - word is 0x80 + r - byte i, within 0 .. 255,
// and its top bit says r >= byte i.
//
// A causal mask hides a third range, the rows before the column's own. Two ranges hold it wherever it touches or covers
// one of the others or one of them is empty in this tile.

#include <cstdint>

#if defined(__CUDACC__)
#define COLONNADE_HOST_DEVICE __host__ __device__
#else
#define COLONNADE_HOST_DEVICE
#endif

namespace colonnade::hopper {

struct TileColumn {
    uint32_t lower, upper;  ///< hidden ranges, begin | end << 8
    uint32_t causal_rows;   ///< [0, causal_rows) is hidden as well
    bool merges;            ///< merged() exists

    /// Bounds as in GpuTilePlan; rows [0, causal_end) of the matrix lie before the column.
    COLONNADE_HOST_DEVICE TileColumn(int lts, int lte, int uts, int ute, int causal_end, int first_row)
        : lower(range(lts, lte, first_row)),
          upper(range(uts, ute, first_row)),
          causal_rows(clamp(causal_end, first_row)),
          merges(causal_rows == 0 || empty(lower) || empty(upper) || begin(upper) <= causal_rows) {}

    /// Both ranges without the causal rule.
    COLONNADE_HOST_DEVICE uint32_t plain() const { return lower | upper << 16; }
    COLONNADE_HOST_DEVICE uint32_t merged() const {
        if (causal_rows == 0) return plain();
        const bool reaches = empty(upper) || begin(upper) <= causal_rows;
        const uint32_t last = empty(upper) || end(upper) < causal_rows ? causal_rows : end(upper);
        return reaches ? lower | last << 24 : upper | causal_rows << 24;
    }
    /// Whether the two ranges, or the causal rule, hide any of rows [first, first + 64).
    COLONNADE_HOST_DEVICE bool ranges_touch(uint32_t first) const { return touch(lower, first) || touch(upper, first); }
    COLONNADE_HOST_DEVICE bool causal_touches(uint32_t first) const { return causal_rows > first; }

  private:
    COLONNADE_HOST_DEVICE static uint32_t clamp(int row, int first_row) {
        const int least = row > first_row ? row : first_row, most = first_row + 128;
        return static_cast<uint32_t>((least < most ? least : most) - first_row);
    }
    COLONNADE_HOST_DEVICE static uint32_t range(int from, int to, int first_row) {
        const uint32_t first = clamp(from, first_row), last = clamp(to, first_row);
        return first | (last > first ? last : first) << 8;
    }
    COLONNADE_HOST_DEVICE static uint32_t begin(uint32_t range) { return range & 255; }
    COLONNADE_HOST_DEVICE static uint32_t end(uint32_t range) { return range >> 8; }
    COLONNADE_HOST_DEVICE static bool empty(uint32_t range) { return begin(range) == end(range); }
    COLONNADE_HOST_DEVICE static bool touch(uint32_t range, uint32_t first) {
        return !empty(range) && begin(range) < first + 64 && end(range) > first;
    }
};

/// What hides() takes of a row of the tile.
COLONNADE_HOST_DEVICE inline uint32_t row_word(uint32_t row) {
    return 0x80808080u + 0x01010101u * row;
}
COLONNADE_HOST_DEVICE inline bool hides(uint32_t word, uint32_t row) {
    const uint32_t at_or_after = row - word;
    return ((at_or_after ^ at_or_after >> 8) & 0x00800080u) != 0;
}

}  // namespace colonnade::hopper

#undef COLONNADE_HOST_DEVICE
