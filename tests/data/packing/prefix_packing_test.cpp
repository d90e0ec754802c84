// Packing by prefixes against counts of distinct prefixes, a naive packer and the best of all partitions; data sets of
// the kinds that share, and data that are hard for it.

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

#include "data/packing/pack_schedule.h"
#include "data/packing/packer.h"
#include "tests/support/expect_error.h"
#include "tests/support/prefix_samples.h"

namespace colonnade {
namespace {

using Packs = std::vector<std::vector<int64_t>>;

/// Samples of each pack, in order of their numbers.
Packs packs_of(const PackPlan& plan) {
    Packs packs;
    for (int64_t p = 0; p < plan.packs(); ++p) {
        packs.emplace_back(plan.pack(p).begin(), plan.pack(p).end());
        std::sort(packs.back().begin(), packs.back().end());
    }
    return packs;
}

/// What holds for every plan.
void expect_whole(const PackPlan& plan, std::span<const int64_t> lengths, int64_t capacity) {
    std::vector<int64_t> sorted = plan.samples;
    std::sort(sorted.begin(), sorted.end());
    ASSERT_EQ(std::ssize(sorted), std::ssize(lengths));
    for (size_t i = 0; i < sorted.size(); ++i) ASSERT_EQ(sorted[i], static_cast<int64_t>(i));  // every sample once
    ASSERT_EQ(std::ssize(plan.tokens), plan.packs());
    ASSERT_LE(*std::max_element(plan.tokens.begin(), plan.tokens.end()), capacity);
    EXPECT_EQ(plan.computed, std::accumulate(plan.tokens.begin(), plan.tokens.end(), int64_t{0}));
    EXPECT_EQ(plan.represented, std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
    EXPECT_DOUBLE_EQ(plan.fill, static_cast<double>(plan.computed) / static_cast<double>(plan.packs() * capacity));
    EXPECT_DOUBLE_EQ(plan.saved(), 1 - static_cast<double>(plan.computed) / static_cast<double>(plan.represented));
    for (int64_t p = 0; p < plan.packs(); ++p) {
        int64_t represented = 0;
        for (const int64_t s : plan.pack(p)) represented += lengths[static_cast<size_t>(s)];
        ASSERT_LT(represented, 2 * PackSettings().most_represented * capacity);
    }
}

PackSettings random_settings(const PrefixSamples& samples, uint64_t seed) {
    Draw draw(seed);
    const int64_t longest = *std::max_element(samples.lengths.begin(), samples.lengths.end());
    return {.packing_length = longest + draw.below(draw.below(2) ? 10 : 200),
            .window = draw.below(2) ? 10000 : 1 + draw.below(20),
            .seed = seed,
            .shuffle = draw.below(4) > 0,
            .min_shared = 1 + draw.below(8)};
}

TEST(PrefixPacking, APackComputesItsDistinctPrefixes) {
    for (uint64_t seed = 0; seed < 200; ++seed) {
        const PrefixSamples samples = random_prefix_samples(seed, 1 + static_cast<int>(seed % 90));
        std::vector<int64_t> place(samples.lengths.size());
        for (size_t k = 0; k < place.size(); ++k)
            place[static_cast<size_t>(samples.prefixes.order[k])] = static_cast<int64_t>(k);
        for (const auto strategy : {PackStrategy::bfd, PackStrategy::sequential, PackStrategy::none}) {
            PackSettings settings = random_settings(samples, seed);
            settings.strategy = strategy;
            const PackPlan plan = Packer(samples.lengths, settings, samples.prefixes).plan(1);
            expect_whole(plan, samples.lengths, settings.packing_length);
            for (int64_t p = 0; p < plan.packs(); ++p) {
                const auto pack = plan.pack(p);
                ASSERT_EQ(plan.tokens[static_cast<size_t>(p)], samples.distinct(pack)) << "seed " << seed;
                for (size_t i = 0; i < pack.size(); ++i) {
                    int64_t shared = 0;
                    if (i > 0) {
                        ASSERT_LT(place[static_cast<size_t>(pack[i - 1])], place[static_cast<size_t>(pack[i])]);
                        const Tokens &a = samples.leading[static_cast<size_t>(pack[i - 1])],
                                     &b = samples.leading[static_cast<size_t>(pack[i])];
                        shared = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
                    }
                    ASSERT_EQ(plan.shared[static_cast<size_t>(plan.begins[static_cast<size_t>(p)]) + i], shared);
                }
            }
            EXPECT_TRUE(strategy != PackStrategy::none || plan.saved() == 0);
        }
    }
}

/// The definition of packer.h without shuffling, in quadratic time.
class NaivePacker {
  public:
    NaivePacker(const PrefixSamples& samples, const PackSettings& settings)
        : settings_(settings),
          found_(pack_units(samples.lengths, samples.prefixes,
                            {.tokens = settings.packing_length, .min_shared = settings.min_shared})) {
        for (const auto& [first, end, stem] : found_.units) {
            const auto begin = samples.prefixes.order.begin();
            Row row{.samples = {begin + first, begin + end}};
            row.tokens = samples.distinct(row.samples);
            row.key = row.samples[0];
            units_[stem].push_back(row);
        }
        for (size_t stem = found_.stems.size(); stem-- > 1;) {
            std::vector<Row> rows = fit(static_cast<int32_t>(stem));
            units_[found_.stems[stem].parent].push_back(rows.back());
            rows.pop_back();
            for (const Row& row : rows) units_[0].push_back(row);
        }
    }
    Packs packs() {
        Packs packs;
        for (const Row& row : fit(0)) {
            packs.emplace_back(row.samples.begin(), row.samples.end());
            std::sort(packs.back().begin(), packs.back().end());
        }
        return packs;
    }

  private:
    struct Row {
        std::vector<int64_t> samples;
        int64_t tokens = 0, key = 0;
    };

    /// Rows of what hangs on a stem, the one that it passes on last.
    std::vector<Row> fit(int32_t stem) {
        std::vector<Row>& parts = units_[stem];
        const int64_t depth = found_.stems[static_cast<size_t>(stem)].depth;
        std::sort(parts.begin(), parts.end(), [](const Row& a, const Row& b) { return a.key < b.key; });
        std::vector<Row> rows, window;
        int64_t samples = 0;
        for (size_t i = 0; i < parts.size(); ++i) {
            window.push_back(parts[i]);
            samples += std::ssize(parts[i].samples);
            if (samples < settings_.window && i + 1 < parts.size()) continue;
            samples = 0;
            std::vector<Row> packed = best_fit(window, depth);
            window.clear();
            if (stem > 0) {
                const auto emptiest = std::min_element(packed.begin(), packed.end(),
                                                       [](const Row& a, const Row& b) { return a.tokens < b.tokens; });
                window.push_back(*emptiest);
                packed.erase(emptiest);
            }
            rows.insert(rows.end(), packed.begin(), packed.end());
        }
        rows.insert(rows.end(), window.begin(), window.end());
        return rows;
    }

    std::vector<Row> best_fit(std::vector<Row> parts, int64_t depth) const {
        std::stable_sort(parts.begin(), parts.end(), [](const Row& a, const Row& b) { return a.tokens > b.tokens; });
        std::vector<Row> rows;
        for (const Row& part : parts) {
            Row* best = nullptr;
            for (Row& row : rows)
                if (row.tokens + part.tokens - depth <= settings_.packing_length &&
                    (!best || row.tokens > best->tokens))
                    best = &row;
            if (!best) {
                rows.push_back(part);
                continue;
            }
            best->tokens += part.tokens - depth;
            best->samples.insert(best->samples.end(), part.samples.begin(), part.samples.end());
        }
        return rows;
    }

    const PackSettings settings_;
    const PackUnits found_;
    std::map<int32_t, std::vector<Row>> units_;  // by stem
};

TEST(PrefixPacking, EqualsNaivePacker) {
    for (uint64_t seed = 0; seed < 200; ++seed) {
        const PrefixSamples samples = random_prefix_samples(seed, 1 + static_cast<int>(seed % 120));
        PackSettings settings = random_settings(samples, seed);
        settings.shuffle = false;
        const PackPlan plan = Packer(samples.lengths, settings, samples.prefixes).plan(0);
        ASSERT_EQ(packs_of(plan), NaivePacker(samples, settings).packs()) << "seed " << seed;
    }
}

/// The fewest tokens that any partition into packs computes.
int64_t best_of_all(const PrefixSamples& samples, int64_t capacity) {
    Packs packs;
    int64_t best = std::numeric_limits<int64_t>::max();
    const std::function<void(int64_t, int64_t)> place = [&](int64_t sample, int64_t tokens) {
        if (sample == std::ssize(samples.lengths)) best = std::min(best, tokens);
        if (tokens >= best || sample == std::ssize(samples.lengths)) return;
        for (size_t p = 0; p <= packs.size(); ++p) {
            if (p == packs.size()) packs.emplace_back();
            const int64_t before = samples.distinct(packs[p]);
            packs[p].push_back(sample);
            const int64_t now = samples.distinct(packs[p]);
            const bool alone = packs[p].size() == 1;
            if (now <= capacity) place(sample + 1, tokens + now - before);
            packs[p].pop_back();
            if (!alone) continue;
            packs.pop_back();
            break;
        }
    };
    place(0, 0);
    return best;
}

TEST(PrefixPacking, IsCloseToTheBestOfAllPartitions) {
    double sum = 0, largest = 0, by_chance = 0;
    int cut = 0;
    for (uint64_t seed = 0; seed < 100; ++seed) {
        const PrefixSamples samples = random_prefix_samples(seed, 6);
        const int64_t longest = *std::max_element(samples.lengths.begin(), samples.lengths.end());
        PackSettings settings{.packing_length = longest + longest / 2, .min_shared = 1};
        const auto best = static_cast<double>(best_of_all(samples, settings.packing_length));
        std::vector<int64_t> all(samples.lengths.size());
        std::iota(all.begin(), all.end(), 0);
        if (best == static_cast<double>(samples.distinct(all))) continue;  // nothing is computed twice
        ++cut;
        const auto ratio = [&] {
            return static_cast<double>(Packer(samples.lengths, settings, samples.prefixes).plan(0).computed) / best;
        };
        EXPECT_GE(ratio(), 1);
        sum += ratio();
        largest = std::max(largest, ratio());
        settings.strategy = PackStrategy::sequential;
        by_chance += ratio();
    }
    EXPECT_GE(cut, 50);
    EXPECT_LE(sum / cut, 1.01);
    EXPECT_LE(largest, 1.1);
    EXPECT_GE(by_chance / cut, 1.1);
}

TEST(PrefixPacking, IsOnePlanForAnyThreadsAndAnotherForEachEpoch) {
    PrefixSamples samples = random_prefix_samples(8, 5000);
    const PackSettings settings{.packing_length = 400, .min_shared = 8};
    const PackPlan plan = Packer(samples.lengths, settings, samples.prefixes).plan(0);
    const int before = omp_get_max_threads();
    omp_set_num_threads(3);
    samples.prefixes = Flat(samples.leading).sorted();
    const Packer packer(samples.lengths, settings, samples.prefixes);
    omp_set_num_threads(before);
    EXPECT_EQ(packer.plan(0).samples, plan.samples);
    EXPECT_EQ(packer.plan(0).begins, plan.begins);
    EXPECT_NE(packer.plan(1).samples, plan.samples);
}

/// Lengths and prefix order of samples that are numbered in walk order, for data sets too large to write down.
struct Walk {
    std::vector<int64_t> lengths;
    PrefixOrder prefixes;

    void add(int64_t length, int64_t shared) {
        prefixes.order.push_back(static_cast<int32_t>(lengths.size()));
        prefixes.lcp.push_back(lengths.empty() ? 0 : static_cast<int32_t>(shared));
        lengths.push_back(length);
    }
    /// Tokens of the whole trie.
    int64_t least() const {
        return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) -
               std::accumulate(prefixes.lcp.begin(), prefixes.lcp.end(), int64_t{0});
    }
    PackPlan plan(int64_t capacity) const {
        const PackPlan plan = Packer(lengths, {.packing_length = capacity}, prefixes).plan(0);
        expect_whole(plan, lengths, capacity);
        return plan;
    }
};

/// A plan is the same on every platform and must not change in later versions.
TEST(PrefixPacking, APlanIsTheSameEverywhere) {
    Walk walk;
    for (int group = 0; group < 3; ++group)
        for (int i = 0; i < 5; ++i) walk.add(100 + 10 * i + group, i > 0 ? 80 : 10);
    const PackSettings settings{.packing_length = 190, .window = 6, .seed = 42};
    EXPECT_EQ(packs_of(Packer(walk.lengths, settings, walk.prefixes).plan(0)),
              (Packs{{3, 4}, {12, 14}, {10, 11, 13}, {5, 6, 8}, {0, 1, 2}, {7, 9}}));
    EXPECT_EQ(packs_of(Packer(walk.lengths, settings, walk.prefixes).plan(1)),
              (Packs{{5, 6, 8}, {0, 1, 2}, {7, 9}, {10, 11, 13}, {3, 4}, {12, 14}}));
}

TEST(PrefixPacking, WithNothingInCommonItIsTheOrdinaryPlan) {
    Walk walk;
    Draw draw(1);
    for (int i = 0; i < 3000; ++i)
        walk.add(128 + draw.below(1000), draw.below(64));  // by chance: below min_shared, and half
    std::reverse(walk.prefixes.order.begin(), walk.prefixes.order.end());
    const PackSettings settings{.packing_length = 2048, .window = 700};
    const PackPlan shared = Packer(walk.lengths, settings, walk.prefixes).plan(3),
                   alone = plan_epoch(walk.lengths, settings, 3);
    EXPECT_EQ(packs_of(shared), packs_of(alone));
    EXPECT_LT(shared.computed, alone.computed);
    EXPECT_EQ(alone.saved(), 0);
}

TEST(PrefixPacking, AFamilyRepeatsItsStemInEveryRow) {
    Walk walk;
    for (int i = 0; i < 100; ++i) walk.add(110, 100);
    const PackPlan plan = walk.plan(210);
    EXPECT_EQ(plan.packs(), 10);  // 100 + 11 x 10
    EXPECT_EQ(plan.computed, 10 * 100 + 100 * 10);
}

TEST(PrefixPacking, WhatFitsStaysTogetherInEveryEpoch) {
    Walk walk;
    for (int prompt = 0; prompt < 500; ++prompt)
        for (int answer = 0; answer < 4; ++answer) walk.add(300 + 7 * answer, answer > 0 ? 200 : 3);
    const Packer packer(walk.lengths, {.packing_length = 2048}, walk.prefixes);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
        const PackPlan plan = packer.plan(epoch);
        EXPECT_LE(plan.computed, walk.least() + 3 * 500);
        EXPECT_GE(plan.fill, 0.93);  // four to a row
        for (int64_t p = 0; p < plan.packs(); ++p) EXPECT_EQ(plan.pack(p).size() % 4, 0u);
    }
}

// A chat's turns behind its trunk: the part with the deep turns takes as much as fits, so that the cut is as near to the
// root as it can be.
TEST(PrefixPacking, ATreeTooLongForARowIsCutNearItsRoot) {
    Walk walk;
    for (int turn = 0; turn < 20; ++turn) walk.add(100 + 100 * turn + 150, 100 + 100 * (turn - 1));
    ASSERT_EQ(walk.least(), 100 + 19 * 100 + 20 * 150);
    // Turns k to 19 are 2000 + (20 - k) 150 tokens: of 3200, they may begin with turn 12. Turns 0 to 11 repeat 1200.
    const PackPlan plan = walk.plan(3200);
    EXPECT_EQ(plan.packs(), 2);
    EXPECT_EQ(plan.computed, walk.least() + 1200);
}

int64_t log_normal(const Philox& random, uint64_t i, double mean, double sigma) {
    return std::max<int64_t>(std::llround(mean * std::exp(sigma * random.normal(i) - sigma * sigma / 2)), 10);
}

// Tokens computed over those of the whole trie, and fill.
TEST(PrefixPacking, DataSetsOfTheKindsThatShare) {
    const Philox random{5, 0};
    Walk chats, shots, rollouts, agents, documents;
    for (uint64_t i = 0; i < 8000; ++i) {
        chats.add(1000 + log_normal(random, i, 300, 0.7), 1000);
        shots.add(2000 + log_normal(random, i, 150, 0.7), 2000);
        documents.add(std::clamp<int64_t>(log_normal(random, i, 900, 1), 64, 16000), random.below(i, 64));
    }
    for (uint64_t group = 0, i = 0; group < 400; ++group) {
        const int64_t prompt = std::min<int64_t>(log_normal(random, group, 1000, 0.6), 6000);
        for (int k = 0; k < 8; ++k)
            rollouts.add(std::min<int64_t>(prompt + log_normal(random, ++i, 1500, 0.8), 16384), k > 0 ? prompt : 1);
        int64_t trunk = 3000;
        for (int64_t turn = 0, before = trunk; turn < 20; ++turn, before = trunk) {
            trunk += log_normal(random, ++i, 380, 0.8);
            agents.add(std::min<int64_t>(trunk + log_normal(random, ++i, 480, 0.6), 32768), before);
        }
    }
    const auto expect = [](const Walk& walk, int64_t capacity, double repeated, double fill) {
        const PackPlan plan = walk.plan(capacity);
        EXPECT_LE(static_cast<double>(plan.computed) / static_cast<double>(walk.least()), 1 + repeated);
        EXPECT_GE(plan.fill, fill);
    };
    expect(chats, 16384, 0.07, 0.99);
    expect(shots, 16384, 0.15, 0.98);
    expect(rollouts, 16384, 0.03, 0.8);
    expect(agents, 32768, 0.16, 0.65);
    expect(documents, 16384, 0.05, 0.95);
}

TEST(PrefixPacking, HardData) {
    constexpr int64_t n = 200000;
    Draw draw(2);
    Walk equal, one_token, stem, deep_stem, full, comb, chain, binary;
    for (int64_t i = 0; i < n; ++i) {
        equal.add(500, 500);
        one_token.add(1, i % 3 > 0);
        stem.add(1050 + draw.below(500), 1000);
        deep_stem.add(16001 + draw.below(383), 16000);
        full.add(16384, i % 2 ? 16384 : 0);
        const int64_t level = i * 250 / n;  // 250 stems within each other, each with 800 leaves of its own
        comb.add(64 * (level + 1) + 1 + draw.below(300), 64 * level + (i > 0 && (i - 1) * 250 / n == level ? 64 : 0));
        binary.add(18 * 800, 800 * (17 - std::countr_zero(static_cast<uint64_t>(i) | 1u << 17)));
    }
    for (int64_t i = 0; i < 15000; ++i) chain.add(64 * (i + 1), 64 * i);
    EXPECT_LE(equal.plan(16384).packs(), 100);
    EXPECT_EQ(one_token.plan(16384).packs(), 20);  // 10,000 samples each
    stem.plan(16384);
    deep_stem.plan(16384);
    EXPECT_EQ(full.plan(16384).packs(), n / 2);
    comb.plan(16384);
    chain.plan(1 << 20);
    binary.plan(16384);
}

TEST(PrefixPacking, ASchedulePlansWithItAndCopiesDoToo) {
    Walk walk;
    Draw draw(4);
    for (int i = 0; i < 3000; ++i) walk.add(1010 + draw.below(500), 1000);
    const PackScheduleSettings settings{
        .packing = {.packing_length = 4096}, .layout = {.accumulation = 2, .ranks = 2}, .epochs = 2};
    PackSchedule alone(walk.lengths, settings), shared(walk.lengths, settings, walk.prefixes), copy = shared;
    EXPECT_LT(2 * shared.total_steps(), alone.total_steps());
    PackPlan plan = Packer(walk.lengths, settings.packing, walk.prefixes).plan(1);
    deal_packs(plan, settings.layout, shared.visible_pairs());
    EXPECT_EQ(shared.plan(1).samples, plan.samples);
    EXPECT_EQ(copy.plan(1).samples, plan.samples);
}

TEST(PrefixPacking, PrefixesThatAreNotThoseOfTheSamplesAreRefused) {
    const std::vector<int64_t> lengths = {5, 7, 3};
    const std::pair<PrefixOrder, const char*> cases[] = {
        {{{0, 1}, {0, 1}}, "2 sequences and 2 common parts for 3 samples"},
        {{{0, 1, 2}, {0, 1}}, "3 sequences and 2 common parts for 3 samples"},
        {{{0, 1, 1}, {0, 1, 1}}, "place 2 of the prefix order is sample 1, expected each of 3 once"},
        {{{0, -1, 2}, {0, 1, 1}}, "place 1 of the prefix order is sample -1"},
        {{{0, 3, 2}, {0, 1, 1}}, "place 1 of the prefix order is sample 3"},
        {{{0, 1, 2}, {0, 6, 1}}, "samples of 5 and 7 tokens have 6 in common"},
        {{{0, 1, 2}, {0, 2, 4}}, "samples of 7 and 3 tokens have 4 in common"},
        {{{0, 1, 2}, {0, -1, 1}}, "have -1 in common"},
        {{{0, 1, 2}, {1, 1, 1}}, "samples of 0 and 5 tokens have 1 in common"},
    };
    for (const auto& [prefixes, message] : cases)
        expect_error(Exit::internal, message, [&] { Packer(lengths, {.packing_length = 16}, prefixes); });
    expect_error(Exit::config, "min_shared is 0", [&] { Packer(lengths, {.packing_length = 16, .min_shared = 0}); });
}

}  // namespace
}  // namespace colonnade
