// The finder of common prefixes against std::sort on whole sequences, and data that are hard for such a sort.

#include "data/samples/prefix_order.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "tests/support/draw.h"
#include "tests/support/expect_error.h"
#include "tests/support/token_forest.h"

namespace colonnade {
namespace {

/// The definition.
PrefixOrder sort_whole(const std::vector<Tokens>& sequences) {
    PrefixOrder result;
    result.order.resize(sequences.size());
    std::iota(result.order.begin(), result.order.end(), 0);
    const auto at = [&](int32_t i) -> const Tokens& { return sequences[static_cast<size_t>(i)]; };
    std::sort(result.order.begin(), result.order.end(),
              [&](int32_t a, int32_t b) { return at(a) != at(b) ? at(a) < at(b) : a < b; });
    for (size_t k = 0; k < sequences.size(); ++k) {
        int32_t lcp = 0;
        if (k > 0) {
            const Tokens &a = at(result.order[k - 1]), &b = at(result.order[k]);
            const auto [end, _] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
            lcp = static_cast<int32_t>(end - a.begin());
        }
        result.lcp.push_back(lcp);
    }
    return result;
}

void expect_equal(const PrefixOrder& got, const PrefixOrder& expected) {
    EXPECT_EQ(got.order, expected.order);
    EXPECT_EQ(got.lcp, expected.lcp);
}

TEST(PrefixOrder, EqualsSortOfWholeSequences) {
    for (uint64_t seed = 0; seed < 600; ++seed) {
        const auto forest = random_forest(seed, 1 + static_cast<int>(seed) % 200);
        expect_equal(Flat(forest).sorted(), sort_whole(forest));
        if (testing::Test::HasFailure()) FAIL() << "forest " << seed;
    }
}

// Groups of 4096 sequences and more are sorted by all threads together.
TEST(PrefixOrder, LargeForestsOnAnyNumberOfThreads) {
    const int before = omp_get_max_threads();
    for (uint64_t seed = 0; seed < 6; ++seed) {
        const auto forest = random_forest(1000 + seed, 30000);
        const PrefixOrder expected = sort_whole(forest);
        for (const int threads : {1, 2, 3, 8}) {
            omp_set_num_threads(threads);
            expect_equal(Flat(forest).sorted(), expected);
        }
    }
    omp_set_num_threads(before);
}

TEST(PrefixOrder, EveryTokenHasItsPlace) {
    const std::vector<Tokens> all = {{INT32_MAX}, {0}, {-1}, {INT32_MIN}, {1}, {}, {0, INT32_MIN}, {0, INT32_MAX}};
    expect_equal(Flat(all).sorted(), sort_whole(all));
    EXPECT_EQ(Flat(all).sorted().order, (std::vector<int32_t>{5, 3, 2, 1, 6, 7, 4, 0}));
}

TEST(PrefixOrder, NoSequencesOneAndEmptyOnes) {
    EXPECT_TRUE(prefix_order({}).order.empty());
    EXPECT_TRUE(Flat().sorted().order.empty());
    expect_equal(Flat({{1, 2}}).sorted(), {{0}, {0}});
    expect_equal(Flat(std::vector<Tokens>(5000)).sorted(), sort_whole(std::vector<Tokens>(5000)));
}

TEST(PrefixOrder, SequencesMayOverlapAndLeaveTokensOut) {
    const std::vector<int32_t> tokens = {9, 1, 2, 3, 1, 2};
    const std::vector<int64_t> begins = {1, 4, 0, 1}, ends = {4, 6, 2, 3};  // 123, 12, 91, 12
    expect_equal(prefix_order({tokens, begins, ends}), {{1, 3, 0, 2}, {0, 2, 2, 0}});
}

/// n equal sequences of `length` tokens.
Flat repeated(int n, int length) {
    Flat flat;
    Tokens s(static_cast<size_t>(length));
    std::iota(s.begin(), s.end(), 0);
    for (int i = 0; i < n; ++i) flat.add(s);
    return flat;
}

TEST(PrefixOrder, AllEqual) {
    const PrefixOrder sorted = repeated(20000, 500).sorted();
    for (int32_t k = 0; k < 20000; ++k) {
        ASSERT_EQ(sorted.order[static_cast<size_t>(k)], k);
        ASSERT_EQ(sorted.lcp[static_cast<size_t>(k)], k > 0 ? 500 : 0);
    }
}

TEST(PrefixOrder, AllDifferentAtTheLastToken) {
    Flat flat = repeated(20000, 500);
    for (size_t i = 0; i < 20000; ++i) flat.tokens[i * 500 + 499] = static_cast<int32_t>(i * 7919 % 20000);
    const PrefixOrder sorted = flat.sorted();
    for (int32_t k = 0; k < 20000; ++k) {
        ASSERT_EQ(int64_t{sorted.order[static_cast<size_t>(k)]} * 7919 % 20000, k);
        ASSERT_EQ(sorted.lcp[static_cast<size_t>(k)], k > 0 ? 499 : 0);
    }
}

TEST(PrefixOrder, AMillionOfOneTokenEach) {
    std::vector<Tokens> sequences;
    Draw draw(1);
    for (int i = 0; i < 1000000; ++i) sequences.push_back({draw.below(50000)});
    expect_equal(Flat(sequences).sorted(), sort_whole(sequences));
}

TEST(PrefixOrder, RowsOf16MillionTokens) {
    constexpr int32_t length = 16 << 20;
    Flat flat = repeated(2, length);
    expect_equal(flat.sorted(), {{0, 1}, {0, length}});
    flat.add({});
    flat.add({0, 1, 2});
    flat.tokens[length - 1] = INT32_MAX;
    expect_equal(flat.sorted(), {{2, 3, 1, 0}, {0, 0, 3, length - 1}});
    EXPECT_EQ(repeated(1, length).sorted().order, (std::vector<int32_t>{0}));
}

// Each is a prefix of the next, in shuffled order: 4,500,000 tokens would be 3000 groups within each other, token by
// token.
TEST(PrefixOrder, DeepChain) {
    constexpr int n = 3000;
    Flat flat;
    for (int i = 0; i < n; ++i) flat.add(Tokens(static_cast<size_t>(i * 1237 % n), 7));
    const PrefixOrder sorted = flat.sorted();
    for (int32_t k = 0; k < n; ++k) {
        ASSERT_EQ(sorted.order[static_cast<size_t>(k)] * 1237 % n, k);
        ASSERT_EQ(sorted.lcp[static_cast<size_t>(k)], std::max(k - 1, 0));
    }
}

// A path with a leaf at every depth. The sequences overlap: 200,000,000 tokens, of which one in four is read.
TEST(PrefixOrder, DeepComb) {
    constexpr int32_t n = 20000;
    std::vector<int32_t> tokens(n, 1);
    tokens.back() = 0;
    std::vector<int64_t> begins(n);
    const std::vector<int64_t> ends(n, n);
    std::iota(begins.begin(), begins.end(), 0);
    const PrefixOrder sorted = prefix_order({tokens, begins, ends});
    for (int32_t k = 0; k < n; ++k) {
        ASSERT_EQ(sorted.order[static_cast<size_t>(k)], n - 1 - k);
        ASSERT_EQ(sorted.lcp[static_cast<size_t>(k)], std::max(k - 1, 0));
    }
}

TEST(PrefixOrder, SequencesOutsideTheTokensAreRefused) {
    const std::vector<int32_t> tokens = {1, 2, 3};
    const std::vector<int64_t> begins = {0, 2}, far = {1, 4}, backwards = {1, 1}, one = {1};
    expect_error(Exit::internal, "sequence 1 is [2, 4) of 3 tokens", [&] { prefix_order({tokens, begins, far}); });
    expect_error(Exit::internal, "sequence 1 is [2, 1) of 3", [&] { prefix_order({tokens, begins, backwards}); });
    expect_error(Exit::internal, "2 begins, but 1 ends", [&] { prefix_order({tokens, begins, one}); });
}

TEST(PrefixOrder, ASequenceOf2To30TokensIsRefused) {
    const int64_t length = int64_t{1} << 30;
    const int32_t token = 0;
    const std::span<const int32_t> tokens(&token, static_cast<size_t>(length));  // refused before a token is read
    const std::vector<int64_t> begins = {0}, ends = {length};
    expect_error(Exit::data, "token sequence 0 has 1073741824 tokens", [&] { prefix_order({tokens, begins, ends}); });
}

/// Nodes of the trie by brute force: for each prefix, the sequences that begin with it.
std::map<Tokens, int64_t> prefixes_of(const std::vector<Tokens>& sequences) {
    std::map<Tokens, int64_t> count;
    for (const Tokens& s : sequences)
        for (size_t n = 1; n <= s.size(); ++n) ++count[Tokens(s.begin(), s.begin() + static_cast<int64_t>(n))];
    return count;
}

TEST(PrefixSharing, CountsDistinctPrefixes) {
    for (uint64_t seed = 0; seed < 100; ++seed) {
        const auto forest = random_forest(seed, 60);
        const Flat flat(forest);
        const PrefixOrder sorted = flat.sorted();
        const PrefixSharing sharing = prefix_sharing(flat.view(), sorted, {.min_shared = 5, .largest = 1000});
        const auto prefixes = prefixes_of(forest);
        EXPECT_EQ(sharing.before, flat.offsets.back());
        EXPECT_EQ(sharing.after, std::ssize(prefixes));
        EXPECT_EQ(sharing.before - sharing.after,
                  sharing.duplicates + sharing.continuations + sharing.stems + sharing.chance);
        const std::set<Tokens> distinct(forest.begin(), forest.end());
        int64_t duplicates = flat.offsets.back();
        for (const Tokens& s : distinct) duplicates -= std::ssize(s);
        EXPECT_EQ(sharing.duplicates, duplicates);

        int64_t saved = 0;
        for (const SharedStem& stem : sharing.largest) {
            saved += stem.saved();
            const Tokens& s = forest[static_cast<size_t>(sorted.order[static_cast<size_t>(stem.first)])];
            for (int64_t n = stem.depth - stem.own + 1; n <= stem.depth; ++n)
                EXPECT_EQ(prefixes.at(Tokens(s.begin(), s.begin() + n)), stem.sequences) << seed;
        }
        EXPECT_EQ(saved, sharing.before - sharing.after);
        EXPECT_TRUE(std::is_sorted(sharing.largest.begin(), sharing.largest.end(),
                                   [](const SharedStem& a, const SharedStem& b) { return a.saved() > b.saved(); }));
        if (testing::Test::HasFailure()) FAIL() << "forest " << seed;
    }
}

TEST(PrefixSharing, SaysWhereItComesFrom) {
    // A prompt 1 1 1 1 of three answers, of which one is there twice, and a chat that goes on; one chance token.
    const Flat flat({{1, 1, 1, 1, 2}, {1, 1, 1, 1, 3}, {1, 1, 1, 1, 2}, {1, 1, 1, 1, 3, 4, 5}, {1, 9}, {8, 8}});
    const PrefixSharing s = prefix_sharing(flat.view(), flat.sorted(), {.min_shared = 4, .largest = 2});
    EXPECT_EQ(s.before, 26);
    EXPECT_EQ(s.after, 11);
    EXPECT_EQ(s.duplicates, 5);
    EXPECT_EQ(s.continuations, 5);
    EXPECT_EQ(s.stems, 4);
    EXPECT_EQ(s.chance, 1);
    ASSERT_EQ(s.largest.size(), 2u);
    EXPECT_EQ(s.largest[0].depth, 4);  // 1 1 1 1, without its first token: four sequences share that with a fifth
    EXPECT_EQ(s.largest[0].own, 3);
    EXPECT_EQ(s.largest[0].sequences, 4);
    EXPECT_EQ(s.largest[0].saved(), 9);
    EXPECT_EQ(s.largest[1].depth, 1);
    EXPECT_EQ(s.largest[1].sequences, 5);
    EXPECT_EQ(s.largest[1].saved(), 4);
    EXPECT_TRUE(prefix_sharing({}, {}).largest.empty());
}

}  // namespace
}  // namespace colonnade
