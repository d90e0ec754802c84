// Element masks of Hopper's forward kernel: their bits, and their exchange between the threads.

#include "attention/hopper/mask_words.h"

#include <gtest/gtest.h>

#include <array>
#include <climits>
#include <random>
#include <vector>

namespace colonnade::hopper {
namespace {

struct Column {
    int lts, lte, uts, ute, causal_end;
    bool hides(int row) const { return (lts <= row && row < lte) || (uts <= row && row < ute) || row < causal_end; }
};

TEST(HopperMaskWords, BitsAreTheHiddenRows) {
    std::mt19937 random(3);
    const auto some = [&](int from, int to) { return std::uniform_int_distribution(from, to)(random); };
    for (int trial = 0; trial < 20000; ++trial) {
        const int first_row = 64 * some(0, 9), near = trial % 3 == 0 ? 5 : 300;
        const auto row = [&] { return std::max(0, first_row + some(-near, near + 100)); };
        Column c{row(), row(), row(), row(), some(0, 2) ? first_row + some(-near, near) : INT_MIN / 2};
        if (c.lts >= c.lte) c.lts = INT_MAX, c.lte = INT_MIN;
        if (c.uts >= c.ute) c.uts = INT_MAX, c.ute = INT_MIN;
        if (trial % 17 == 0) c.lts = INT_MIN, c.lte = INT_MAX;  // padding
        const HiddenRows hidden(c.lts, c.lte, c.uts, c.ute, first_row);
        for (int first = 0; first < 192; first += 32) {
            const uint32_t word = hidden.word(first, c.causal_end - first_row);
            for (int r = 0; r < 32; ++r)
                ASSERT_EQ(word >> r & 1, c.hides(first_row + first + r) ? 1u : 0u)
                    << "trial " << trial << ", row " << first + r;
        }
    }
}

/// Runs of rows as the mask warp takes them: from one row that does not continue the position before it to the next.
TEST(HopperMaskWords, BitsPastAWindowAreThoseOfThePositions) {
    std::mt19937 random(5);
    const auto some = [&](int from, int to) { return std::uniform_int_distribution(from, to)(random); };
    for (int trial = 0; trial < 20000; ++trial) {
        std::array<int, 32> positions{};
        const int jumps = some(0, 31);
        for (size_t r = 0; r < 32; ++r)
            positions[r] = r == 0 || some(0, 31) < jumps ? some(0, 60) : positions[r - 1] + 1;
        if (trial % 5 == 0)  // the largest that a mask allows
            for (int& p : positions) p += (1 << 30) - 256 - 100;
        const int limit = trial % 7 == 0 ? INT_MAX - 511 : positions[static_cast<size_t>(some(0, 31))] + some(-40, 40);
        uint32_t word = 0;
        for (int begin = 0, end = 0; begin < 32; begin = end) {
            for (end = begin + 1; end < 32; ++end)
                if (positions[static_cast<size_t>(end)] != positions[static_cast<size_t>(end) - 1] + 1) break;
            word |= past_window(begin, end, positions[static_cast<size_t>(begin)], limit);
        }
        for (size_t r = 0; r < 32; ++r)
            ASSERT_EQ(word >> r & 1, positions[r] >= limit ? 1u : 0u) << "trial " << trial << ", row " << r;
    }
}

/// Runs the lanes of a warp in lockstep, like the kernel's shuffles.
template <int columns>
void expect_the_bits_of_its_scores() {
    constexpr int lanes = mask_lanes(columns), words_of_lane = mask_words(columns) / 32;
    std::mt19937 random(4);
    std::array<std::array<bool, columns>, 64> hidden{};
    for (auto& row : hidden)
        for (bool& bit : row) bit = random() % 2 != 0;
    std::vector<uint32_t> words(mask_words(columns));
    for (int lane = 0; lane < 32; ++lane)
        for (int n = 0; n < words_of_lane; ++n) {  // as the mask warp does
            const int h = lanes == 32 ? n / 4 : lane / lanes, i = n % 4,
                      column = lane % lanes / 2 * 8 + 2 * i + lane % 2;
            for (int r = 0; r < 32; ++r) {
                const bool bit = hidden[static_cast<size_t>(32 * h + r)][static_cast<size_t>(column)];
                words[static_cast<size_t>((4 * h + i) * lanes + lane % lanes)] |= static_cast<uint32_t>(bit) << r;
            }
        }
    std::vector<int> named(columns / 2);
    for (int warp = 0; warp < 4; ++warp)
        for (int n = 0; n < mask_words_of_thread(columns); ++n) {
            std::array<uint32_t, 32> of_lane{};
            for (int lane = 0; lane < 32; ++lane)
                of_lane[static_cast<size_t>(lane)] = mask_begin<columns>(words.data(), warp, n, lane);
            for (int i = 0; i < mask_steps; ++i) {
                const MaskStep step(i);
                const auto before = of_lane;
                for (int lane = 0; lane < 32; ++lane)
                    of_lane[static_cast<size_t>(lane)] = mask_step(
                        before[static_cast<size_t>(lane)], before[static_cast<size_t>(lane ^ step.lanes)], step, lane);
            }
            for (int bit = 0; bit < 32; ++bit) {
                const int score = mask_score<columns>(n, bit);
                ++named[static_cast<size_t>(score)];
                for (int lane = 0; lane < 32; ++lane) {
                    const int row = 16 * warp + lane / 4 + 8 * (score / 2 % 2),
                              column = score / 4 * 8 + 2 * (lane % 4) + score % 2;
                    ASSERT_EQ(of_lane[static_cast<size_t>(lane)] >> bit & 1,
                              hidden[static_cast<size_t>(row)][static_cast<size_t>(column)] ? 1u : 0u)
                        << columns << " columns: row " << row << ", column " << column;
                }
            }
        }
    for (size_t i = 0; i < named.size(); ++i) EXPECT_EQ(named[i], 4) << columns << " columns: score " << i;
}

TEST(HopperMaskWords, EveryThreadGetsTheBitsOfItsScores) {
    expect_the_bits_of_its_scores<128>();
    expect_the_bits_of_its_scores<64>();
}

}  // namespace
}  // namespace colonnade::hopper
