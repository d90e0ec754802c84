#include "attention/tile_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "attention/mask_families.h"
#include "attention/tile_columns.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_mask.h"
#include "tests/support/random_walk.h"

namespace colonnade {
namespace {

/// Compares every tile of the plan, its transpose, its pair count and its orders with the dense mask.
void expect_exact(const ColumnMask& mask, int64_t tile_rows, int64_t tile_columns, const std::string& name) {
    SCOPED_TRACE(fmt::format("{} {} x {}, tiles {} x {}", name, mask.rows, mask.columns, tile_rows, tile_columns));
    const TilePlan plan = make_tile_plan(mask, tile_rows, tile_columns);
    ASSERT_EQ(plan.row_blocks, (mask.rows + tile_rows - 1) / tile_rows);
    ASSERT_EQ(plan.column_blocks, (mask.columns + tile_columns - 1) / tile_columns);
    const auto dense = mask.dense();
    std::vector<std::vector<int32_t>> by_row,
        by_column(static_cast<size_t>(mask.batch * mask.heads * plan.column_blocks));
    std::map<std::pair<size_t, int32_t>, bool> partial;
    int64_t pairs = 0;
    for (int64_t sheet = 0; sheet < mask.batch * mask.heads; ++sheet) {
        for (int64_t r = 0; r < plan.row_blocks; ++r) {
            by_row.emplace_back();
            for (int64_t c = 0; c < plan.column_blocks; ++c) {
                int64_t seen = 0, all = 0;
                for (int64_t i = r * tile_rows; i < std::min((r + 1) * tile_rows, mask.rows); ++i)
                    for (int64_t j = c * tile_columns; j < std::min((c + 1) * tile_columns, mask.columns); ++j, ++all)
                        seen += dense[static_cast<size_t>((sheet * mask.rows + i) * mask.columns + j)];
                pairs += seen;
                if (seen == 0) continue;
                by_row.back().push_back(static_cast<int32_t>(c));
                by_column[static_cast<size_t>(sheet * plan.column_blocks + c)].push_back(static_cast<int32_t>(r));
                partial[{by_row.size() - 1, static_cast<int32_t>(c)}] = seen < all;
            }
        }
    }
    EXPECT_EQ(plan.cpu.visible_pairs, pairs);
    EXPECT_EQ(count_visible_pairs(mask), pairs);
    const auto expect_lists = [](const auto& expected, const auto& begin, const auto& tiles, auto&& is_partial) {
        ASSERT_EQ(begin.size(), expected.size() + 1);
        ASSERT_EQ(begin.back(), static_cast<int64_t>(tiles.size()));
        for (size_t list = 0; list < expected.size(); ++list) {
            ASSERT_EQ(begin[list + 1] - begin[list], static_cast<int64_t>(expected[list].size())) << "list " << list;
            for (size_t t = 0; t < expected[list].size(); ++t) {
                const auto tile = tiles[static_cast<size_t>(begin[list]) + t];
                ASSERT_EQ(tile.index, expected[list][t]) << "list " << list;
                ASSERT_EQ(tile.partial, is_partial(list, tile.index)) << "list " << list << ", tile " << tile.index;
            }
        }
    };
    const auto row_blocks = static_cast<size_t>(plan.row_blocks),
               column_blocks = static_cast<size_t>(plan.column_blocks);
    expect_lists(by_row, plan.cpu.by_row_begin, plan.cpu.by_row, [&](size_t list, int32_t c) {
        return partial.at({list, c});
    });
    expect_lists(by_column, plan.cpu.by_column_begin, plan.cpu.by_column, [&](size_t list, int32_t r) {
        return partial.at(
            {list / column_blocks * row_blocks + static_cast<size_t>(r), static_cast<int32_t>(list % column_blocks)});
    });
    const auto expect_order = [](const auto& order, const auto& lists) {
        std::vector<int32_t> expected(lists.size());
        std::iota(expected.begin(), expected.end(), 0);
        std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
            return lists[static_cast<size_t>(a)].size() > lists[static_cast<size_t>(b)].size();
        });
        EXPECT_EQ(order, expected);
    };
    expect_order(plan.cpu.row_order, by_row);
    expect_order(plan.cpu.column_order, by_column);
    EXPECT_EQ(plan.cpu.partial_tiles(),
              std::count_if(partial.begin(), partial.end(), [](const auto& t) { return t.second; }));
}

TEST(TilePlan, IsExactForEveryFamily) {
    for (const int64_t n : {1, 63, 65, 130})
        for (const MaskFamily& family : mask_families())
            for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{64, 64}, {16, 8}, {7, 13}})
                expect_exact(family.build(default_parameters(n, n, 2, 3)), rows, columns, std::string(family.name));
}

TEST(TilePlan, IsExactForAnyMask) {
    for (uint64_t seed = 0; seed < 300; ++seed) {
        const int64_t rows = 1 + static_cast<int64_t>(seed * 7 % 41),
                      columns = 1 + static_cast<int64_t>(seed * 11 % 37);
        expect_exact(random_column_mask(seed, 1 + seed % 2, 1 + seed % 3, rows, columns),
                     1 + static_cast<int64_t>(seed % 9), 1 + static_cast<int64_t>(seed % 5),
                     fmt::format("seed {}", seed));
    }
}

TEST(TilePlan, IsExactForTreesWithinWindows) {
    for (uint64_t seed = 0; seed < 100; ++seed)
        expect_exact(tree_within_window(seed, 1 + static_cast<int64_t>(seed * 37 % 300)),
                     1 + static_cast<int64_t>(seed % 33), 1 + static_cast<int64_t>(seed % 29),
                     fmt::format("seed {}", seed));
}

TEST(TilePlan, IsExactForAnyPositions) {
    for (uint64_t seed = 0; seed < 200; ++seed)
        expect_exact(random_positions_mask(seed, 1 + static_cast<int64_t>(seed % 2), 1 + static_cast<int64_t>(seed % 3),
                                           1 + static_cast<int64_t>(seed * 7 % 51)),
                     1 + static_cast<int64_t>(seed % 9), 1 + static_cast<int64_t>(seed % 5),
                     fmt::format("seed {}", seed));
}

TEST(TilePlan, RecognisesTilesHiddenByTheUnionOfRanges) {
    // Rows 0..3 of tile 0 are hidden by the upper range, rows 4..7 by the lower one: neither covers the tile alone.
    ColumnMask ranges{.causal = false,
                      .vectors = MaskVectors::all,
                      .rows = 16,
                      .columns = 8,
                      .lts = std::vector<int32_t>(8, 4),
                      .lte = std::vector<int32_t>(8, 8),
                      .uts = std::vector<int32_t>(8, 0),
                      .ute = std::vector<int32_t>(8, 4)};
    TilePlan plan = make_tile_plan(ranges, 8, 8);
    ASSERT_EQ(plan.cpu.active_tiles(), 1);
    EXPECT_EQ(plan.cpu.by_row[0].index, 0);
    EXPECT_EQ(plan.cpu.by_row_begin, (std::vector<int64_t>{0, 0, 1}));
    EXPECT_EQ(plan.cpu.partial_tiles(), 0);
    EXPECT_EQ(plan.cpu.visible_pairs, 64);
    // The causal rule hides rows before j, and lts = j hides the rest, so no tile is left.
    ColumnMask nothing{.causal = true, .vectors = MaskVectors::lts, .rows = 16, .columns = 16};
    for (int32_t j = 0; j < 16; ++j) nothing.lts.push_back(j);
    plan = make_tile_plan(nothing, 8, 8);
    EXPECT_EQ(plan.cpu.active_tiles(), 0);
    EXPECT_EQ(plan.cpu.visible_pairs, 0);
}

TEST(TilePlan, EmptyMasks) {
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{0, 0}, {0, 5}, {5, 0}})
        expect_exact(causal_mask(rows, columns), 4, 4, "empty");
}

TEST(TilePlan, ActiveTilesOfEqualDocuments) {
    const TilePlan plan = make_tile_plan(document_mask(1024, default_parameters(1024, 1024, 1, 16).ends));
    EXPECT_EQ(plan.cpu.active_tiles() * 16, plan.tiles());
    EXPECT_EQ(plan.cpu.partial_tiles(), 0);
    EXPECT_EQ(plan.cpu.visible_pairs, 1024 * 64);
}

TEST(TilePlan, OfTheCpuHasSmallTilesWhereLittleOfLargeOnesIsVisible) {
    Arena planned(Device::cpu);
    const auto tiles = [&](const ColumnMask& mask) {
        const TilePlan plan = make_tile_plan({}, GpuTilePlan::lay_out(planned, mask), mask);
        EXPECT_EQ(plan.cpu.visible_pairs, count_visible_pairs(mask));
        EXPECT_EQ(plan.cpu.active_tiles(), make_tile_plan(mask, plan.tile_rows, plan.tile_columns).cpu.active_tiles());
        return std::pair(plan.tile_rows, plan.tile_columns);
    };
    EXPECT_EQ(tiles(causal_mask(640, 640)), (std::pair<int64_t, int64_t>(64, 64)));
    const auto short_documents = default_parameters(640, 640, 1, 40).ends;
    EXPECT_EQ(tiles(causal_document_mask(640, short_documents)), (std::pair<int64_t, int64_t>(32, 32)));
    EXPECT_EQ(planned.bytes(), 0u);
}

TEST(TilePlan, RefusesMasksThatAreNotValid) {
    ColumnMask mask = causal_document_mask(8, {4, 8});
    mask.lts[3] = 9;
    EXPECT_THROW(make_tile_plan(mask), Error);
}

/// What the plan of a GPU asks of each column of a tile. Tiles of trees are hidden from all rows exactly if all of their
/// columns say so; other masks may keep some that could go.
TEST(TileColumn, HidesTheRowsThatTheExactPlanLacks) {
    int64_t hidden_by_windows = 0;
    for (uint64_t seed = 0; seed < 150; ++seed) {
        const auto n = static_cast<int64_t>(1 + seed * 71 % 1000);
        const bool tree = seed % 3 != 0;
        const ColumnMask mask = tree ? tree_within_window(seed, n) : random_positions_mask(seed, 1, 2, n);
        const TilePlan exact = make_tile_plan(mask);
        for (int64_t sheet = 0; sheet < mask.batch * mask.heads; ++sheet)
            for (int64_t r = 0; r < exact.row_blocks; ++r) {
                const auto begin = static_cast<int32_t>(64 * r), end = static_cast<int32_t>(std::min(64 * (r + 1), n));
                const int32_t* positions = mask.row_positions.data() + sheet / mask.heads * n;
                std::vector<int32_t> least(positions + begin, positions + end);
                std::partial_sum(least.begin(), least.end(), least.begin(),
                                 [](int32_t a, int32_t b) { return std::min(a, b); });
                for (int64_t c = 0; c < exact.column_blocks; ++c) {
                    bool all = true, by_ranges = true;
                    for (int64_t j = 64 * c; j < std::min(64 * (c + 1), n); ++j) {
                        constexpr int32_t none = std::numeric_limits<int32_t>::max();
                        auto x = mask.bounds(sheet / mask.heads, sheet % mask.heads, j);
                        if (x.lts == x.lte) x.lts = none, x.lte = -none - 1;
                        if (x.uts == x.ute) x.uts = none, x.ute = -none - 1;
                        TileColumn column{
                            x.lts, x.lte, x.uts, x.ute, mask.causal_rows(j), positions[j] + mask.position_window};
                        all = all && column.hides(begin, end, least.data());
                        column.limit = none;
                        by_ranges = by_ranges && column.hides(begin, end, least.data());
                    }
                    const auto list = static_cast<size_t>(sheet * exact.row_blocks + r);
                    const auto first = exact.cpu.by_row.begin() + exact.cpu.by_row_begin[list],
                               last = exact.cpu.by_row.begin() + exact.cpu.by_row_begin[list + 1];
                    const bool active = std::any_of(first, last, [&](auto tile) { return tile.index == c; });
                    ASSERT_TRUE(active ? !all : (all || !tree))
                        << "seed " << seed << ", row block " << r << ", column block " << c;
                    hidden_by_windows += all && !by_ranges;
                }
            }
    }
    EXPECT_GT(hidden_by_windows, 500);
}

}  // namespace
}  // namespace colonnade
