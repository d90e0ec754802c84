// Batches against their definition: which prefixes a row holds, what each of them sees, and what each sequence learns.

#include "data/packing/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "data/packing/row_order.h"
#include "engine/device/error.h"
#include "engine/device/philox.h"
#include "tests/support/random_trees.h"

namespace colonnade {
namespace {

using Packs = std::vector<std::vector<Sample>>;
using Path = std::vector<int32_t>;

std::vector<std::vector<const Sample*>> views(const Packs& packs) {
    std::vector<std::vector<const Sample*>> result(packs.size());
    for (size_t p = 0; p < packs.size(); ++p)
        for (const Sample& sample : packs[p]) result[p].push_back(&sample);
    return result;
}

/// What every row of a batch stands for: the tokens that it sees in the dense mask, itself last.
std::vector<Path> paths_of(const Batch& batch) {
    const std::vector<uint8_t> dense = batch.mask.dense();
    const auto length = static_cast<size_t>(batch.length);
    std::vector<Path> paths(batch.tokens.size());
    for (size_t row = 0; row < paths.size(); ++row) {
        for (size_t j = 0; j < length; ++j)
            if (dense[row * length + j]) paths[row].push_back(batch.tokens[row / length * length + j]);
        EXPECT_EQ(batch.positions[row], std::max<int64_t>(0, std::ssize(paths[row]) - 1));
        EXPECT_TRUE(paths[row].empty() || paths[row].back() == batch.tokens[row]);
    }
    return paths;
}

/// The prefixes that a pack's rows should stand for, sorted: with Sharing::sample those that a sequence does not share
/// with the one before it in its sample, with Sharing::row those of all sequences, each once.
std::vector<Path> expected_paths(const std::vector<Sample>& pack, Sharing sharing) {
    std::vector<Path> paths;
    for (const Sample& sample : pack) {
        for (size_t s = 0; s < sample.sequences.size(); ++s) {
            const Path whole = sample.whole(s);
            const int64_t from = sharing == Sharing::row ? 0 : sample.sequences[s].shared;
            for (int64_t n = from + 1; n <= std::ssize(whole); ++n)
                paths.emplace_back(whole.begin(), whole.begin() + n);
        }
    }
    std::ranges::sort(paths);
    if (sharing == Sharing::row) paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    return paths;
}

void expect_rows(const Packs& packs, const Batch& batch, const std::vector<Path>& paths, Sharing sharing) {
    int64_t real = 0;
    for (size_t p = 0; p < packs.size(); ++p) {
        const auto first = paths.begin() + static_cast<int64_t>(p) * batch.length;
        std::vector<Path> found(first, first + batch.length);
        std::ranges::sort(found);
        std::erase(found, Path());
        const std::vector<Path> expected = expected_paths(packs[p], sharing);
        ASSERT_EQ(found, expected) << "pack " << p;
        real += std::ssize(expected);
    }
    EXPECT_EQ(batch.real_tokens, real);
}

/// The numbers that came with a sequence are those of its terms.
void expect_given(const Sequence& sequence, size_t number, const Batch& batch) {
    ASSERT_EQ(batch.advantages[number], sequence.advantage);
    const float reward = batch.rewards[number];
    ASSERT_EQ(std::isnan(reward) ? std::optional<float>() : reward, sequence.reward);
    for (const auto of : GivenLogps::all) {
        const std::vector<float>&given = sequence.logps.*of, &all = batch.logps.*of;
        ASSERT_TRUE(all.empty() || all.size() == batch.term_targets.size());
        const int32_t begin = batch.term_begins[number];
        for (int32_t term = begin; term < batch.term_begins[number + 1]; ++term) {
            const float found = all.empty() ? NAN : all[static_cast<size_t>(term)];
            if (given.empty())
                ASSERT_TRUE(std::isnan(found));
            else
                ASSERT_EQ(found, given[static_cast<size_t>(term - begin)]);
        }
    }
}

/// Every sequence learns its own tokens, each behind the tokens before it.
void expect_terms(const Sequence& sequence, const Path& whole, size_t number, const Batch& batch,
                  const std::vector<Path>& paths) {
    const std::vector<float> weights = weights_of(sequence);
    auto term = static_cast<size_t>(batch.term_begins[number]);
    for (size_t i = 0; i < whole.size(); ++i) {
        if (weights[i] == 0) continue;
        ASSERT_LT(term, static_cast<size_t>(batch.term_begins[number + 1]));
        const auto target = static_cast<size_t>(batch.term_targets[term]);
        ASSERT_EQ(batch.targets[target], whole[i]);
        ASSERT_EQ(paths[static_cast<size_t>(batch.rows[target])],
                  Path(whole.begin(), whole.begin() + std::ptrdiff_t(i)));
        ASSERT_EQ(batch.term_weights[term], weights[i]);
        ++term;
    }
    ASSERT_NO_FATAL_FAILURE(expect_given(sequence, number, batch));
    ASSERT_EQ(term, static_cast<size_t>(batch.term_begins[number + 1]));
    const int32_t last = batch.sequences[number].last_row;
    ASSERT_EQ(last < 0 ? Path() : paths[static_cast<size_t>(last)], whole);
}

void expect_as_defined(const Packs& packs, const Batch& batch, Sharing sharing = Sharing::sample) {
    batch.mask.validate();
    const std::vector<Path> paths = paths_of(batch);
    ASSERT_NO_FATAL_FAILURE(expect_rows(packs, batch, paths, sharing));
    int32_t number = 0, sample_number = 0;
    double weight = 0, pair_weight = 0, ranking_weight = 0;
    std::vector<AnswerPair> pairs;
    for (const auto& pack : packs) {
        for (const Sample& sample : pack) {
            for (AnswerPair pair : sample.pairs) {
                pair_weight += static_cast<double>(pair.weight);
                ranking_weight += static_cast<double>(pair.weight) / static_cast<double>(sample.pairs.size());
                pair.better += number;
                pair.worse += number;
                pairs.push_back(pair);
            }
            ASSERT_EQ(batch.pair_begins[static_cast<size_t>(sample_number) + 1], std::ssize(pairs));
            for (int32_t rank = 0; rank < std::ssize(sample.sequences); ++rank, ++number) {
                const auto s = static_cast<size_t>(rank), n = static_cast<size_t>(number);
                ASSERT_EQ(batch.sequences[n].sample, sample_number);
                ASSERT_EQ(batch.sequences[n].rank, rank);
                ASSERT_NO_FATAL_FAILURE(expect_terms(sample.sequences[s], sample.whole(s), n, batch, paths));
            }
            weight += target_weight(sample);
            ++sample_number;
        }
    }
    EXPECT_EQ(batch.samples, sample_number);
    EXPECT_EQ(std::ssize(batch.sequences), number);
    EXPECT_EQ(batch.pairs, pairs);
    EXPECT_DOUBLE_EQ(batch.pair_weight, pair_weight);
    EXPECT_NEAR(batch.ranking_weight, ranking_weight, 1e-13);
    EXPECT_DOUBLE_EQ(batch.target_weight, weight);
    EXPECT_DOUBLE_EQ(std::accumulate(batch.weights.begin(), batch.weights.end(), 0.0), weight);
    // Targets are sorted by row, and no two of a row are the same prefix.
    EXPECT_TRUE(std::is_sorted(batch.rows.begin(), batch.rows.end()));
    std::vector<double> weights(batch.targets.size());
    for (size_t t = 0; t < batch.term_targets.size(); ++t)
        weights[static_cast<size_t>(batch.term_targets[t])] += static_cast<double>(batch.term_weights[t]);
    EXPECT_EQ(weights, batch.weights);
}

/// A random sample with one stem.
Sample random_sample(const Philox& random, uint64_t& at) {
    FlatSample sample{.begins = {}};
    const auto draw = [&](uint64_t n) { return random.below(at++, n); };
    const auto append = [&](uint64_t count) {
        for (uint64_t i = 0; i < count; ++i) {
            sample.tokens.push_back(static_cast<int32_t>(1 + draw(1000)));
            sample.weights.push_back(static_cast<float>(draw(3)) / 2);
        }
    };
    append(draw(5));
    for (uint64_t branches = 1 + draw(4); branches > 0; --branches) {
        sample.begins.push_back(static_cast<int32_t>(sample.tokens.size()));
        append(draw(5));
    }
    sample.margin = static_cast<float>(draw(3));
    return sample_of(sample);
}

Sample tree(const Philox& random, uint64_t& at) {
    return random_tree(random, at);
}

template <typename Draw>
Packs random_packs(const Philox& random, uint64_t& at, Draw&& sample) {
    Packs packs(1 + random.below(at++, 3));
    for (auto& pack : packs)
        for (uint64_t n = random.below(at++, 4); n > 0; --n) pack.push_back(sample(random, at));
    return packs;
}

TEST(Batch, TheExampleOfTheHeader) {
    const Packs packs = {
        {sample_of({{10, 11, 12}, {1, 1, 1}}), sample_of({{20, 21, 30, 31, 40}, {0, 0, 1, 1, 1}, {2, 4}, 0.5f})}};
    const Batch batch = make_batch(views(packs), {.align = 3});
    EXPECT_EQ(batch.length, 9);
    EXPECT_EQ(batch.tokens, (Path{10, 11, 12, 20, 21, 30, 31, 40, 0}));
    EXPECT_EQ(batch.positions, (Path{0, 1, 2, 0, 1, 2, 3, 2, 0}));
    EXPECT_EQ(batch.mask.lts, (Path{3, 3, 3, 8, 8, 7, 7, 8, 0}));
    EXPECT_EQ(batch.rows, (Path{0, 1, 4, 4, 5}));
    EXPECT_EQ(batch.targets, (Path{11, 12, 30, 40, 31}));
    EXPECT_EQ(batch.term_begins, (Path{0, 2, 4, 5}));
    EXPECT_EQ(batch.term_targets, (Path{0, 1, 2, 4, 3}));
    EXPECT_EQ(batch.sequences, (std::vector<BatchSequence>{{0, 0, 2}, {1, 0, 6}, {1, 1, 7}}));
    EXPECT_EQ(batch.pairs, (std::vector<AnswerPair>{{1, 2, 0.5f}}));
    expect_as_defined(packs, batch);
}

TEST(Batch, RandomForestsAreAsDefined) {
    const Philox random{6, 1};
    uint64_t at = 0;
    int64_t alone = 0, merged = 0;
    for (int trial = 0; trial < 600; ++trial) {
        const Packs packs = random_packs(random, at, tree);
        const auto align = static_cast<int64_t>(1 + random.below(at++, 8));
        for (const Sharing sharing : {Sharing::sample, Sharing::row}) {
            const Batch batch = make_batch(views(packs), {.align = align, .sharing = sharing});
            ASSERT_NO_FATAL_FAILURE(expect_as_defined(packs, batch, sharing)) << trial;
            EXPECT_EQ(batch.length % align, 0);
            (sharing == Sharing::sample ? alone : merged) += batch.real_tokens;
        }
    }
    EXPECT_LT(1.1 * static_cast<double>(merged), static_cast<double>(alone));
}

TEST(Batch, TheRowsOfAPackAreNoLongerThanNeeded) {
    const Philox random{7, 1};
    uint64_t at = 0;
    for (int trial = 0; trial < 300; ++trial) {
        const Packs packs = random_packs(random, at, random_sample);
        const auto align = static_cast<int64_t>(1 + random.below(at++, 8));
        const Batch batch = make_batch(views(packs), {.align = align});
        int64_t fullest = 1;
        for (const auto& pack : packs) {
            int64_t sum = 0;
            for (const Sample& sample : pack) sum += sample.length();
            fullest = std::max(fullest, sum);
        }
        EXPECT_GE(batch.length, fullest);
        EXPECT_LT(batch.length, fullest + align);
        ASSERT_NO_FATAL_FAILURE(expect_as_defined(packs, batch));
    }
}

/// The walk enters the largest subtree first at every node: so the leaves of a trunk follow it, deepest first.
TEST(RowOrder, TheTrunkComesBeforeItsLeaves) {
    const auto order_of = [](const std::vector<Path>& sequences) {
        std::vector<std::pair<size_t, int64_t>> order;
        for (const auto& [sequence, shared] : row_order(sequences)) order.emplace_back(sequence, shared);
        return order;
    };
    using Order = std::vector<std::pair<size_t, int64_t>>;
    // A trunk 1 2 3 4 5 6 with leaves 9 at depth 2, and 9 9 at depth 4.
    EXPECT_EQ(order_of({{1, 2, 9}, {1, 2, 3, 4, 9, 9}, {1, 2, 3, 4, 5, 6, 7}}), (Order{{2, 0}, {1, 4}, {0, 2}}));
    EXPECT_EQ(order_of({{5}, {4}, {4, 4}}), (Order{{1, 0}, {2, 1}, {0, 0}}));  // a whole prefix comes first
    EXPECT_EQ(order_of({{2}, {1}, {2}, {3}}),
              (Order{{1, 0}, {0, 0}, {2, 1}, {3, 0}}));  // ties by token, then by number
    EXPECT_EQ(order_of({{}, {1}, {}}), (Order{{0, 0}, {2, 0}, {1, 0}}));
    EXPECT_TRUE(order_of({}).empty());
}

TEST(RowOrder, ALongCombAndManyCopiesTakeNoDeepRecursion) {
    std::vector<Path> comb, copies(20'000, Path{1, 2, 3});
    for (int n = 1; n <= 3000; ++n) comb.emplace_back(static_cast<size_t>(n), 7);
    for (const auto& [sequences, tokens] : {std::pair{&comb, int64_t{3000}}, {&copies, int64_t{3}}}) {
        int64_t placed = 0;
        for (const auto& [sequence, shared] : row_order(*sequences))
            placed += std::ssize((*sequences)[sequence]) - shared;
        EXPECT_EQ(placed, tokens);
    }
}

/// Windows count positions: a sequence sees its stem as if it followed directly, however many others are between them.
TEST(Batch, SlidingWindowsCountPositions) {
    const Philox random{9, 1};
    uint64_t at = 0;
    int of_ranges = 0, of_positions = 0;
    for (int trial = 0; trial < 600; ++trial) {
        const Packs packs = trial % 2 ? random_packs(random, at, random_sample) : random_packs(random, at, tree);
        const auto window = static_cast<int64_t>(1 + random.below(at++, 8));
        const Batch batch = make_batch(views(packs), {.align = 1 + static_cast<int64_t>(random.below(at++, 4))});
        const ColumnMask mask = batch.mask.with_sliding_window(window, batch.positions);
        mask.validate();
        (mask.position_window > 0 ? of_positions : of_ranges) += 1;
        // One sequence and pairs need no positions.
        const auto pair = [](const Sample& sample) { return sample.sequences.size() < 3; };
        const bool pairs =
            std::ranges::all_of(packs, [&](const auto& pack) { return std::ranges::all_of(pack, pair); });
        EXPECT_TRUE(!pairs || mask.position_window == 0);
        const std::vector<uint8_t> dense = mask.dense(), whole = batch.mask.dense();
        for (size_t i = 0; i < dense.size(); ++i) {
            const size_t row = i / static_cast<size_t>(batch.length);
            const size_t column = row / static_cast<size_t>(batch.length) * static_cast<size_t>(batch.length) +
                                  i % static_cast<size_t>(batch.length);
            ASSERT_EQ(dense[i], whole[i] && batch.positions[row] - batch.positions[column] < window)
                << "row " << row << " column " << column << " window " << window;
        }
    }
    EXPECT_GT(of_ranges, 100);
    EXPECT_GT(of_positions, 20);
}

TEST(Batch, OneTokenSamplesAndEmptyPacks) {
    const Packs packs = {{}, {sample_of({{5}, {1}}), sample_of({{6}, {1}})}, {}};
    const Batch batch = make_batch(views(packs));
    EXPECT_EQ(batch.length, 2);
    EXPECT_TRUE(batch.rows.empty());  // no row comes before a first token
    expect_as_defined(packs, batch);

    const Batch empty = make_batch({{}, {}}, {.align = 4});
    EXPECT_EQ(empty.length, 4);
    EXPECT_EQ(empty.real_tokens, 0);
    expect_as_defined({{}, {}}, empty);
}

TEST(Batch, BrokenSamplesAreRefused) {
    const Sample broken[] = {
        {},
        {.sequences = {{.shared = 1, .tokens = {1}}}},
        {.sequences = {{.tokens = {1, 2}}, {.shared = 3, .tokens = {1}}}},
        {.sequences = {{.shared = -1, .tokens = {1, 2}}}},
        {.sequences = {{.tokens = {1, 2}, .learned = {{0, 1, 1}}}}},
        {.sequences = {{.tokens = {1, 2}, .learned = {{1, 3, 1}}}}},
        {.sequences = {{.tokens = {1, 2}, .learned = {{1, 1, 1}}}}},
        {.sequences = {{.tokens = {1, 2}, .learned = {{1, 2, 0}}}}},
        {.sequences = {{.tokens = {1, 2, 3}, .learned = {{2, 3, 1}, {1, 2, 1}}}}},
        {.sequences = {{.tokens = {1, 2}}}, .pairs = {{0, 1}}},
        {.sequences = {{.tokens = {1, 2}}, {.tokens = {1}}}, .pairs = {{1, 1}}},
    };
    for (const Sample& sample : broken) {
        try {
            make_batch({{&sample}});
            FAIL() << "accepted sample " << &sample - broken;
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), Exit::internal);
        }
    }
}

}  // namespace
}  // namespace colonnade
