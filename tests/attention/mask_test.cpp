#include "attention/mask.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "attention/mask_families.h"
#include "attention/tile_plan.h"
#include "tests/support/draw.h"
#include "tests/support/expect_error.h"
#include "tests/support/visible_pairs.h"

namespace colonnade {
namespace {

const std::vector<int64_t> lengths = {1, 2, 7, 33, 64, 65};

/// Lists of documents for a length: one document, three with an empty one, one followed by padding, padding only.
std::vector<std::vector<int64_t>> document_lists(int64_t n) {
    return {{n}, {n / 3, n / 3, n / 2, n}, {n / 4, n * 3 / 4}, {}};
}

/// Index of the document at a position, -1 for padding.
int64_t document_of(const std::vector<int64_t>& ends, int64_t position) {
    const auto at = std::upper_bound(ends.begin(), ends.end(), position);
    return at == ends.end() ? -1 : at - ends.begin();
}

bool same_document(const std::vector<int64_t>& ends, int64_t i, int64_t j) {
    return document_of(ends, i) >= 0 && document_of(ends, i) == document_of(ends, j);
}

TEST(MaskBuilders, FullAndCausal) {
    for (const int64_t rows : {1, 5, 12}) {
        for (const int64_t columns : {1, 5, 12}) {
            expect_visible(full_mask(rows, columns), [](int64_t, int64_t) { return true; });
            expect_visible(causal_mask(rows, columns), [&](int64_t i, int64_t j) { return j <= i + columns - rows; });
        }
    }
}

TEST(MaskBuilders, Windows) {
    for (const int64_t n : lengths) {
        for (const int64_t w : {int64_t{1}, int64_t{3}, n, n + 5, std::numeric_limits<int64_t>::max()}) {
            expect_visible(sliding_window_mask(n, w), [&](int64_t i, int64_t j) { return j <= i && i - j < w; });
            for (const int64_t right : {int64_t{0}, int64_t{2}, n, std::numeric_limits<int64_t>::max()}) {
                const auto near = [&](int64_t i, int64_t j) { return i - j <= w && j - i <= right; };
                expect_visible(bidirectional_window_mask(n, w, right), near);
                for (const int64_t global : {int64_t{0}, int64_t{4}, n + 1})
                    expect_visible(global_sliding_window_mask(n, global, w, right),
                                   [&](int64_t i, int64_t j) { return i < global || j < global || near(i, j); });
            }
        }
    }
}

TEST(MaskBuilders, Documents) {
    for (const int64_t n : lengths) {
        for (const auto& ends : document_lists(n)) {
            expect_visible(causal_document_mask(n, ends),
                           [&](int64_t i, int64_t j) { return j <= i && same_document(ends, i, j); });
            expect_visible(document_mask(n, ends), [&](int64_t i, int64_t j) { return same_document(ends, i, j); });
            const int64_t last = static_cast<int64_t>(ends.size()) - 1;
            expect_visible(causal_blockwise_mask(n, ends), [&](int64_t i, int64_t j) {
                return j <= i && document_of(ends, i) >= 0 &&
                       (same_document(ends, i, j) || document_of(ends, i) == last);
            });
            std::vector<int64_t> prefixes;
            for (size_t d = 0; d < ends.size(); ++d)
                prefixes.push_back((ends[d] - (d ? ends[d - 1] : 0)) * static_cast<int64_t>(d % 3) / 2);
            expect_visible(prefix_lm_document_mask(n, ends, prefixes), [&](int64_t i, int64_t j) {
                if (!same_document(ends, i, j)) return false;
                const auto d = static_cast<size_t>(document_of(ends, j));
                return j <= i || j < (d ? ends[d - 1] : 0) + prefixes[d];
            });
        }
    }
}

TEST(MaskBuilders, ShareQuestion) {
    const std::vector<BranchedSample> samples = {{3, {2, 4}}, {0, {5}}, {4, {}}, {2, {1, 0, 3}}};  // 24 tokens
    // (sample, branch) of each position; the branch of a stem is -1.
    std::vector<std::pair<int, int>> place;
    for (int s = 0; s < 4; ++s) {
        const auto& sample = samples[static_cast<size_t>(s)];
        place.insert(place.end(), static_cast<size_t>(sample.stem), {s, -1});
        for (int b = 0; b < static_cast<int>(sample.branches.size()); ++b)
            place.insert(place.end(), static_cast<size_t>(sample.branches[static_cast<size_t>(b)]), {s, b});
    }
    for (const int64_t n : {24, 31}) {
        place.resize(static_cast<size_t>(n), {-1, -1});
        expect_visible(share_question_mask(n, samples), [&](int64_t i, int64_t j) {
            const auto [si, bi] = place[static_cast<size_t>(i)];
            const auto [sj, bj] = place[static_cast<size_t>(j)];
            return j <= i && si >= 0 && si == sj && (bj == -1 || bi == bj);
        });
    }
}

/// Sequences over two letters, so that many prefixes are shared: every row sees the rows of its prefixes.
TEST(MaskBuilders, TreesAreTheirPrefixes) {
    Draw draw(5);
    for (int round = 0; round < 200; ++round) {
        std::vector<std::string> wholes(static_cast<size_t>(draw.below(9)));
        for (std::string& whole : wholes)
            for (int n = draw.below(8); n > 0; --n) whole += static_cast<char>('a' + draw.below(2));
        std::ranges::sort(wholes);
        std::vector<WalkedSequence> sequences;
        std::vector<std::string> prefixes;  // of each row, itself included
        for (size_t s = 0; s < wholes.size(); ++s) {
            const std::string& whole = wholes[s];
            const std::string before = s > 0 ? wholes[s - 1] : "";
            const auto shared = std::ranges::mismatch(before, whole).in2 - whole.begin();
            sequences.push_back({shared, std::ssize(whole) - shared});
            for (int64_t n = shared + 1; n <= std::ssize(whole); ++n)
                prefixes.push_back(whole.substr(0, static_cast<size_t>(n)));
        }
        const int64_t used = std::ssize(prefixes);
        expect_visible(tree_mask(used + round % 3, sequences), [&](int64_t i, int64_t j) {
            return i < used && j < used &&
                   prefixes[static_cast<size_t>(i)].starts_with(prefixes[static_cast<size_t>(j)]);
        });
    }
}

TEST(MaskBuilders, TreesOfDepthOneAreSharedQuestions) {
    EXPECT_EQ(tree_mask(20, {{0, 5}, {2, 4}, {2, 1}, {0, 7}}).lts,
              share_question_mask(20, {{2, {3, 4, 1}}, {0, {7}}}).lts);
}

TEST(MaskBuilders, PrefixLm) {
    for (const int64_t n : lengths)
        for (const int64_t prefix : {int64_t{0}, n / 2, n, n + 3})
            expect_visible(prefix_lm_causal_mask(n, prefix),
                           [&](int64_t i, int64_t j) { return j < prefix || j <= i; });
}

TEST(MaskBuilders, Sparse) {
    const std::vector<ColumnRun> runs = {{0, 3}, {5, 4}, {20, 0}, {25, 8}};
    expect_visible(qk_sparse_mask(33, runs), [&](int64_t i, int64_t j) {
        for (const ColumnRun& run : runs)
            if (j >= run.begin && j < run.begin + run.length && i < run.begin + run.length) return false;
        return j <= i;
    });
    // The paper's figure 1(b)(11).
    const std::vector<int32_t> end = {2, 2, 4, 5, 5, 8, 8, 9, 10, 10}, first = {0, 0, 1, 3, 4, 4, 5, 7, 8, 9};
    expect_visible(hash_sparse_mask(10, first, end), [&](int64_t i, int64_t j) {
        return i >= first[static_cast<size_t>(j)] && i < end[static_cast<size_t>(j)];
    });
}

TEST(MaskBuilders, RandomEvictionDropsOneEarlierKeyPerRow) {
    constexpr int64_t n = 65, heads = 3, start = 20;
    const ColumnMask mask = random_eviction_mask(n, heads, start, 11);
    mask.validate();
    EXPECT_EQ(mask.lts, random_eviction_mask(n, heads, start, 11).lts);
    EXPECT_NE(mask.lts, random_eviction_mask(n, heads, start, 12).lts);
    std::set<std::vector<int32_t>> drawn;
    for (int64_t h = 0; h < heads; ++h) {
        std::vector<int> evictions(n);
        std::vector<int32_t> column;
        for (int64_t j = 0; j < n; ++j) {
            const int32_t row = mask.bounds(0, h, j).lts;
            column.push_back(row);
            if (row == n) continue;
            EXPECT_GT(row, j);
            ++evictions[static_cast<size_t>(row)];
        }
        for (int64_t i = 0; i < n; ++i) EXPECT_EQ(evictions[static_cast<size_t>(i)], i >= start ? 1 : 0) << "row " << i;
        drawn.insert(column);
    }
    EXPECT_EQ(drawn.size(), size_t{heads});
}

TEST(MaskBuilders, RefuseBadInput) {
    const auto refuse = [](Exit exit, const char* part, std::function<ColumnMask()> build) {
        expect_error(exit, part, build);
    };
    refuse(Exit::data, "document 1 of a mask of length 8 ends at 2, expected 3..8", [] {
        return document_mask(8, {3, 2});
    });
    refuse(Exit::data, "a mask of length 2147483647: expected 0..2147483646",
           [] { return document_mask(2147483647, {}); });
    refuse(Exit::data, "document 0 of a mask of length 8 ends at 9", [] { return causal_document_mask(8, {9}); });
    refuse(Exit::data, "at 5 of a mask of length 8: expected 0..3", [] {
        return share_question_mask(8, {{2, {3, 4}}});
    });
    refuse(Exit::data, "sequence 1 shares 4 tokens with the one before it, expected 0..3", [] {
        return tree_mask(8, {{0, 3}, {4, 1}});
    });
    refuse(Exit::data, "sequence 1 has 6 tokens of its own at 3 of a mask of length 8: expected 0..5", [] {
        return tree_mask(8, {{0, 3}, {2, 6}});
    });
    refuse(Exit::data, "prefix of document 1 is 6, expected 0..5", [] {
        return prefix_lm_document_mask(8, {3, 8}, {1, 6});
    });
    refuse(Exit::data, "1 prefixes for 2 documents", [] { return prefix_lm_document_mask(8, {3, 8}, {1}); });
    refuse(Exit::data, "expected to begin at 5 or later", [] { return qk_sparse_mask(8, {{2, 3}, {4, 1}}); });
    refuse(Exit::data, "lts has 1 entries, expected 2", [] { return hash_sparse_mask(2, {0, 0}, {1}); });
    refuse(Exit::data, "column 1: lts 0, lte 2, uts 0, ute 1", [] { return hash_sparse_mask(2, {0, 1}, {1, 0}); });
    refuse(Exit::config, "a sliding window of 0", [] { return sliding_window_mask(8, 0); });
    refuse(Exit::config, "a window of -1 keys back", [] { return bidirectional_window_mask(8, -1, 2); });
    refuse(Exit::config, "-1 global tokens", [] { return global_sliding_window_mask(8, -1, 2, 2); });
    refuse(Exit::config, "a prefix of -1", [] { return prefix_lm_causal_mask(8, -1); });
    refuse(Exit::config, "0 heads", [] { return random_eviction_mask(8, 0, 1, 1); });
    refuse(Exit::data, "rows -1", [] { return causal_mask(-1, 3); });
    refuse(Exit::data, "length -1", [] { return document_mask(-1, {}); });
}

TEST(ColumnMask, ValidationNamesWhatIsWrong) {
    const ColumnMask good{.causal = true,
                          .vectors = MaskVectors::all,
                          .batch = 2,
                          .heads = 2,
                          .rows = 6,
                          .columns = 2,
                          .lts = std::vector<int32_t>(8, 4),
                          .lte = std::vector<int32_t>(8, 6),
                          .uts = std::vector<int32_t>(8, 1),
                          .ute = std::vector<int32_t>(8, 4)};
    good.validate();
    const auto broken = [&](const char* part, const std::function<void(ColumnMask&)>& damage) {
        ColumnMask m = good;
        damage(m);
        expect_error(Exit::data, part, [&] { m.validate(); });
    };
    broken("lte[batch 1, head 0, column 1] is 7, expected 0..6", [](ColumnMask& m) { m.lte[5] = 7; });
    broken("uts[batch 0, head 1, column 0] is -1, expected 0..6", [](ColumnMask& m) { m.uts[2] = -1; });
    broken("batch 1, head 1, column 0: lts 4, lte 3, uts 1, ute 4: expected lts <= lte",
           [](ColumnMask& m) { m.lte[6] = 3; });
    broken("expected uts <= ute", [](ColumnMask& m) { m.uts[0] = 5; });
    broken("to end before the lower one", [](ColumnMask& m) { m.ute[7] = 5; });
    broken("ute has 7 entries, expected 8 (batch 2 x heads 2 x columns 2, carried)",
           [](ColumnMask& m) { m.ute.pop_back(); });
    broken("lte has 8 entries, expected 0", [](ColumnMask& m) { m.vectors = MaskVectors::lts; });
    broken("only with all four vectors", [](ColumnMask& m) { m.vectors = MaskVectors::lts_ute; });
    broken("heads 0", [](ColumnMask& m) { m.heads = 0; });
    broken("rows 2147483647, columns 2: expected heads from 1, the others 0..2147483646",
           [](ColumnMask& m) { m.rows = 2147483647; });
    broken("position_window is 3 without row_positions, expected 0", [](ColumnMask& m) { m.position_window = 3; });
    const auto with_positions = [&](ColumnMask& m, int32_t window, int32_t last) {
        m = stack({causal_mask(3, 3), causal_mask(3, 3)});
        m.position_window = window;
        m.row_positions = {0, 1, 2, 0, 1, last};
    };
    broken("row_positions[batch 1, row 2] is -1, expected 0..1073741568",
           [&](ColumnMask& m) { with_positions(m, 2, -1); });
    broken("row_positions[batch 1, row 2] is 1073741569", [&](ColumnMask& m) { with_positions(m, 2, 1073741569); });
    broken("position_window is 0, expected 1..1073741568", [&](ColumnMask& m) { with_positions(m, 0, 2); });
    broken("position_window is -1, expected 1..", [&](ColumnMask& m) { with_positions(m, -1, 2); });
    broken("6 row_positions for batch 2 x 6 rows x 2 columns, expected one for each row, and as many columns as rows",
           [&](ColumnMask& m) { m.position_window = 1, m.row_positions.resize(6); });
    // Out of order, but one range is empty, which is allowed.
    ColumnMask empty_range = good;
    empty_range.uts[0] = empty_range.ute[0] = 6;
    empty_range.validate();
}

TEST(Stack, WidensToACommonForm) {
    const std::vector<int64_t> ends = {4, 9};
    const std::vector<ColumnMask> causal = {causal_mask(9, 9), causal_document_mask(9, ends),
                                            qk_sparse_mask(9, {{2, 3}}), causal_blockwise_mask(9, {2, 5})};
    const std::vector<ColumnMask> open = {full_mask(9, 9), document_mask(9, ends),
                                          global_sliding_window_mask(9, 1, 2, 2)};
    const auto expect_stacked = [](const std::vector<ColumnMask>& masks, MaskVectors form) {
        const ColumnMask stacked = stack(masks);
        stacked.validate();
        EXPECT_EQ(stacked.vectors, form);
        EXPECT_EQ(stacked.batch, static_cast<int64_t>(masks.size()));
        std::vector<uint8_t> expected;
        for (const auto& m : masks) {
            const auto dense = m.dense();
            expected.insert(expected.end(), dense.begin(), dense.end());
        }
        EXPECT_EQ(stacked.dense(), expected);
    };
    expect_stacked({causal[0], causal[0]}, MaskVectors::none);
    expect_stacked({causal[0], causal[1]}, MaskVectors::lts);
    expect_stacked({causal[1], causal[2]}, MaskVectors::lts_lte);
    expect_stacked(causal, MaskVectors::all);
    expect_stacked({open[0], open[1]}, MaskVectors::lts_ute);
    expect_stacked(open, MaskVectors::all);
    expect_error(Exit::internal, "masks that differ", [&] { stack({causal[0], open[0]}); });
    expect_error(Exit::internal, "expected at least one mask", [] { stack({}); });
}

TEST(MaskFamilies, AreFoundByName) {
    for (const MaskFamily& family : mask_families()) EXPECT_EQ(&mask_family(family.name), &family);
    expect_error(Exit::config, "unknown mask family 'caudal': expected one of full, causal,",
                 [] { mask_family("caudal"); });
}

/// The order of siblings permutes rows and nothing else.
TEST(MaskFamilies, OrdersOfSiblingsSeeTheSamePairs) {
    for (const char* name : {"agent_traces", "chats_behind_stem", "rollouts"})
        for (const int64_t n : {0, 1, 100, 5000}) {
            FamilyParameters p = default_parameters(n, n);
            p.seed = static_cast<uint64_t>(n);
            const auto subtrees = [&](SiblingOrder order) {
                p.siblings = order;
                const ColumnMask mask = mask_family(name).build(p);
                mask.validate();
                std::multiset<int64_t> of_subtrees;
                for (int64_t j = 0; j < n; ++j) of_subtrees.insert(mask.bounds(0, 0, j).lts - j);
                return of_subtrees;
            };
            EXPECT_EQ(subtrees(SiblingOrder::largest_first), subtrees(SiblingOrder::as_found)) << name << " " << n;
        }
}

TEST(MaskFamilies, TheTrunkOfAnAgentComesBeforeItsLeaves) {
    FamilyParameters p = default_parameters(10000, 10000);
    p.stem = 3000, p.leaf = 400;
    const auto plan = [&](SiblingOrder order) {
        p.siblings = order;
        return make_tile_plan(mask_family("agent_traces").build(p)).cpu;
    };
    const CpuTilePlan large = plan(SiblingOrder::largest_first), found = plan(SiblingOrder::as_found);
    EXPECT_LT(large.active_tiles(), found.active_tiles());
    EXPECT_LT(2 * large.partial_tiles(), found.partial_tiles());
    p.stem = 10000;
    EXPECT_EQ(mask_family("agent_traces").build(p).lts, std::vector<int32_t>(10000, 10000)) << "one path";
}

TEST(MaskFamilies, DocumentsOfRandomLengthsFillTheRow) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
        const auto ends = random_document_ends(1000, 7, 100, seed);
        ASSERT_EQ(ends.size(), 7u);
        EXPECT_EQ(ends.back(), 1000);
        for (size_t d = 0; d < ends.size(); ++d) EXPECT_GE(ends[d] - (d ? ends[d - 1] : 0), 100);
        EXPECT_EQ(ends, random_document_ends(1000, 7, 100, seed));
    }
    EXPECT_NE(random_document_ends(1000, 7, 100, 1), random_document_ends(1000, 7, 100, 2));
    EXPECT_EQ(random_document_ends(700, 7, 100, 1), (std::vector<int64_t>{100, 200, 300, 400, 500, 600, 700}));
    expect_error(Exit::config, "8 documents of at least 100 tokens do not fit 700",
                 [] { random_document_ends(700, 8, 100, 1); });
}

}  // namespace
}  // namespace colonnade
