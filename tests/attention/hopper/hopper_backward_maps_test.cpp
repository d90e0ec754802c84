// The index arithmetic of Hopper's backward against plain loops, without a GPU.
#include "attention/hopper/backward_maps.h"

#include <gtest/gtest.h>

#include <climits>
#include <vector>

#include "tests/support/draw.h"

namespace colonnade {
namespace {

using namespace hopper;

TEST(HopperBackwardMaps, HiddenRowsAreThoseOfTheBounds) {
    Draw draw(1);
    const auto hidden = [](int row, int from, int to) { return row >= from && row < to; };
    for (int n = 0; n < 20000; ++n) {
        const int first_row = 64 * draw.below(4);
        int b[5];
        for (int& x : b) {
            const int kind = draw.below(8);
            x = kind == 0 ? INT_MIN : kind == 1 ? INT_MAX : draw.below(330) - 20;
        }
        if (b[4] == INT_MIN || b[4] == INT_MAX) b[4] = 0;
        for (const int pair : {0, 2, 4, 6}) {
            const uint32_t word = hidden_rows(b[0], b[1], b[2], b[3], b[4], first_row, pair);
            ASSERT_EQ(word & 0xccccccccu, 0u);
            for (int j = 0; j < 8; ++j)
                for (int e = 0; e < 2; ++e) {
                    const int row = first_row + 8 * j + pair + e;
                    ASSERT_EQ(word >> (4 * j + e) & 1, hidden(row, b[0], b[1]) || hidden(row, b[2], b[3]) || row < b[4])
                        << "row " << row << ", bounds " << b[0] << " " << b[1] << " " << b[2] << " " << b[3]
                        << ", causal " << b[4];
                }
        }
    }
}

TEST(HopperBackwardMaps, RowsPastAWindowAreThoseOfThePositions) {
    Draw draw(2);
    for (int n = 0; n < 5000; ++n) {
        alignas(8) int32_t positions[64];
        const int32_t base = n % 3 == 0 ? (1 << 30) - 256 - 100 : 0;
        for (int32_t& p : positions) p = base + draw.below(100);
        const int32_t limits[2] = {base + draw.below(120), n % 5 == 0 ? INT_MAX - 511 : base + 1 + draw.below(120)};
        for (const int pair : {0, 2, 4, 6}) {
            const uint32_t word = rows_past_window(positions, pair, limits);
            for (int i = 0; i < 32; ++i) {
                const int row = 8 * (i / 4) + pair + i % 2;
                ASSERT_EQ(word >> i & 1, positions[row] >= limits[i / 2 % 2] ? 1u : 0u) << "bit " << i;
            }
        }
    }
}

/// The rounding kernel reads an accumulator [64, 64] in the layout in which the threads of a warpgroup write it.
TEST(HopperBackwardMaps, SumsAreFoundWhereTheyWerePut) {
    std::vector<int> block(sum_block, -1);
    for (int thread = 0; thread < 128; ++thread)
        for (int element = 0; element < 32; ++element) {
            const int j = element / 4, r = element / 2 % 2, e = element % 2, lane = thread % 32;
            const int row = 16 * (thread / 32) + lane / 4 + 8 * r, column = 8 * j + 2 * (lane % 4) + e;
            const int byte = 16 * thread + 2048 * j + 4 * (element % 4);
            ASSERT_EQ(std::exchange(block[static_cast<size_t>(byte / 4)], 64 * row + column), -1);
        }
    for (int j = 0; j < 8; ++j)
        for (int warp = 0; warp < 4; ++warp)
            for (int row = 0; row < 8; ++row)
                for (int l = 0; l < 4; ++l)
                    for (int i = 0; i < 4; ++i)
                        ASSERT_EQ(block[static_cast<size_t>(sums_of(j, warp, row) + 4 * l + i)],
                                  64 * (16 * warp + row + i / 2 * 8) + 8 * j + 2 * l + i % 2);
}

}  // namespace
}  // namespace colonnade
