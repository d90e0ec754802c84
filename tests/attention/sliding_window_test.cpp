// Sliding windows as ranges of hidden rows, and as positions where ranges do not suffice.

#include <gtest/gtest.h>

#include <set>

#include "attention/mask_families.h"
#include "attention/tile_plan.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_mask.h"
#include "tests/support/random_walk.h"
#include "tests/support/visible_pairs.h"

namespace colonnade {
namespace {

/// The pairs of `mask` that are also within the window.
std::vector<uint8_t> windowed(const ColumnMask& mask, int64_t window) {
    auto dense = mask.dense();
    for (size_t at = 0; at < dense.size(); ++at) {
        const int64_t j = static_cast<int64_t>(at) % mask.columns,
                      i = static_cast<int64_t>(at) / mask.columns % mask.rows;
        dense[at] = dense[at] && i + mask.columns - mask.rows - j < window;
    }
    return dense;
}

TEST(SlidingWindow, IntersectsEveryCausalFamily) {
    int families = 0;
    for (const int64_t n : {7, 33, 65}) {
        for (const MaskFamily& family : mask_families()) {
            const ColumnMask mask = family.build(default_parameters(n, n, 2, 3));
            if (!mask.causal) continue;
            ++families;
            for (const int64_t w : {int64_t{1}, int64_t{5}, n / 2, n, std::numeric_limits<int64_t>::max()}) {
                const ColumnMask both = mask.with_sliding_window(w);
                both.validate();
                EXPECT_EQ(both.dense(), windowed(mask, w)) << family.name << " " << n << " window " << w;
            }
        }
    }
    EXPECT_EQ(families, 3 * 11);
    // With padding after the last document the blockwise mask uses both ranges.
    for (const int64_t w : {1, 4, 10, 40}) {
        const ColumnMask padded = causal_blockwise_mask(33, {10, 20, 28});
        EXPECT_EQ(padded.with_sliding_window(w).dense(), windowed(padded, w));
    }
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{5, 12}, {12, 5}, {1, 9}})
        for (const int64_t w : {1, 3, 20})
            EXPECT_EQ(causal_mask(rows, columns).with_sliding_window(w).dense(),
                      windowed(causal_mask(rows, columns), w));
}

TEST(SlidingWindow, IsExactOrRefusedForAnyCausalMask) {
    int exact = 0, refused = 0;
    for (uint64_t seed = 0; seed < 400; ++seed) {
        const ColumnMask mask = random_column_mask(seed, 2, 1, 23, seed % 2 ? 23 : 17);
        if (!mask.causal) continue;
        const auto window = static_cast<int64_t>(1 + seed % 19);
        try {
            const ColumnMask both = mask.with_sliding_window(window);
            both.validate();
            ASSERT_EQ(both.dense(), windowed(mask, window)) << "seed " << seed;
            ++exact;
        } catch (const Error& e) {
            ASSERT_EQ(e.exit(), Exit::config);
            // Only masks that use both ranges can need a third one.
            ASSERT_EQ(mask.vectors, MaskVectors::all) << e.what();
            ++refused;
        }
    }
    EXPECT_GT(exact, 100);
    EXPECT_GT(refused, 10);
}

TEST(SlidingWindow, RefusesWhatTwoRangesCannotSay) {
    ColumnMask mask{.causal = true,
                    .vectors = MaskVectors::all,
                    .rows = 20,
                    .columns = 1,
                    .lts = {6},
                    .lte = {7},
                    .uts = {3},
                    .ute = {4}};
    expect_error(Exit::config, "needs 3 hidden row ranges, a column mask has at most two: [3, 4), [6, 7), [10, 20)",
                 [&] {
                     ColumnMask wide = mask;
                     wide.columns = 20;
                     for (auto* v : {&wide.lts, &wide.lte, &wide.uts, &wide.ute}) v->assign(20, v->front());
                     wide.with_sliding_window(10);
                 });
    expect_error(Exit::config, "needs a causal mask", [] { full_mask(4, 4).with_sliding_window(2); });
}

/// The tokens of a random walk see their own sequences within the window, whatever form the mask has.
TEST(SlidingWindow, SaysEveryTreeByPositions) {
    int of_ranges = 0, of_positions = 0;
    for (uint64_t seed = 0; seed < 200; ++seed) {
        const int64_t n = 1 + static_cast<int64_t>(seed * 7 % 90);
        const std::vector<WalkedSequence> walk = random_walk(seed, n);
        const std::vector<int32_t> positions = tree_positions(n, walk);
        // Rows of each sequence, by position.
        std::vector<std::vector<int64_t>> paths;
        int64_t row = 0;
        for (const auto& [shared, own] : walk) {
            std::vector<int64_t> path;
            if (shared > 0) path.assign(paths.back().begin(), paths.back().begin() + shared);
            for (int64_t i = 0; i < own; ++i) path.push_back(row++);
            paths.push_back(std::move(path));
        }
        for (const int64_t window : {int64_t{1}, int64_t{5}, 2 + static_cast<int64_t>(seed % 13), n}) {
            std::set<std::pair<int64_t, int64_t>> seen;
            for (const auto& path : paths)
                for (int64_t i = 0; i < std::ssize(path); ++i)
                    for (int64_t j = std::max<int64_t>(0, i - window + 1); j <= i; ++j)
                        seen.emplace(path[static_cast<size_t>(i)], path[static_cast<size_t>(j)]);
            const ColumnMask mask = tree_mask(n, walk).with_sliding_window(window, positions);
            (mask.position_window > 0 ? of_positions : of_ranges) += 1;
            SCOPED_TRACE(fmt::format("seed {}, window {}", seed, window));
            expect_visible(mask, [&](int64_t i, int64_t j) { return seen.contains({i, j}); });
            EXPECT_EQ(count_visible_pairs(mask), std::ssize(seen));
        }
    }
    EXPECT_GT(of_ranges, 200);
    EXPECT_GT(of_positions, 100);
}

/// A stem of 4 and three answers of 5. The window of 3 ends within each of them: three ranges for a key of the stem.
const std::vector<WalkedSequence> answers = {{0, 9}, {4, 5}, {4, 5}};

TEST(SlidingWindow, TakesPositionsOnlyIfRangesDoNotSuffice) {
    const std::vector<int32_t> positions = tree_positions(20, answers);
    EXPECT_EQ(positions, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 0}));
    const ColumnMask tree = tree_mask(20, answers), narrow = tree.with_sliding_window(3, positions);
    EXPECT_EQ(narrow.position_window, 3);
    EXPECT_EQ(narrow.row_positions, positions);
    EXPECT_EQ(narrow.lts, tree.lts);
    // Longer than any sequence: nothing to hide.
    const ColumnMask wide = tree.with_sliding_window(9, positions);
    EXPECT_EQ(wide.position_window, 0);
    EXPECT_TRUE(wide.row_positions.empty());
    EXPECT_EQ(wide.dense(), tree.dense());
    // Two answers need no third range.
    const auto pair = std::vector<WalkedSequence>{answers[0], answers[1]};
    EXPECT_EQ(tree_mask(20, pair).with_sliding_window(3, tree_positions(20, pair)).position_window, 0);
}

TEST(SlidingWindow, OfAMaskWithAWindow) {
    const std::vector<int32_t> positions = tree_positions(20, answers);
    const ColumnMask three = tree_mask(20, answers).with_sliding_window(3, positions);
    for (const int64_t window : {1, 2, 3, 5}) {
        const ColumnMask both = three.with_sliding_window(window, positions);
        both.validate();
        EXPECT_EQ(both.dense(),
                  tree_mask(20, answers).with_sliding_window(std::min<int64_t>(window, 3), positions).dense());
        EXPECT_EQ(three.with_sliding_window(window).dense(), windowed(three, window));
    }
    expect_error(Exit::config, "a sliding window of 2 by other positions than those of the mask's window of 3",
                 [&] { three.with_sliding_window(2, std::vector<int32_t>(20)); });
}

TEST(Stack, KeepsWindowsOfPositions) {
    const std::vector<int32_t> positions = tree_positions(20, answers);
    const ColumnMask three = tree_mask(20, answers).with_sliding_window(3, positions),
                     two = tree_mask(20, answers).with_sliding_window(2, positions), causal = causal_mask(20, 20);
    for (const auto& masks : {std::vector{three, causal}, std::vector{causal, three, three}}) {
        const ColumnMask stacked = stack(masks);
        stacked.validate();
        std::vector<uint8_t> expected;
        for (const ColumnMask& m : masks) {
            const auto dense = m.dense();
            expected.insert(expected.end(), dense.begin(), dense.end());
        }
        EXPECT_EQ(stacked.dense(), expected);
    }
    expect_error(Exit::internal, "stack of masks with windows of 2 and 3 positions", [&] { stack({three, two}); });
}

}  // namespace
}  // namespace colonnade
