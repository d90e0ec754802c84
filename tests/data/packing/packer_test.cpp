// The packer against a naive best-fit decreasing, and the properties of a plan.

#include "data/packing/packer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "engine/device/error.h"
#include "engine/device/philox.h"
#include "tests/support/log_normal_lengths.h"

namespace colonnade {
namespace {

using Packs = std::vector<std::vector<int64_t>>;

Packs packs_of(const PackPlan& plan) {
    Packs packs;
    for (int64_t p = 0; p < plan.packs(); ++p) packs.emplace_back(plan.pack(p).begin(), plan.pack(p).end());
    return packs;
}

int64_t tokens_of(const std::vector<int64_t>& pack, const std::vector<int64_t>& lengths) {
    return std::accumulate(pack.begin(), pack.end(), int64_t{0},
                           [&](int64_t sum, int64_t i) { return sum + lengths[static_cast<size_t>(i)]; });
}

/// The definition, O(n^2): samples by decreasing length (ties in order), each into the fullest pack with enough room
/// (ties: the first).
Packs naive_bfd(std::vector<int64_t> order, const std::vector<int64_t>& lengths, int64_t capacity) {
    const auto length = [&](int64_t i) { return lengths[static_cast<size_t>(i)]; };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
    Packs packs;
    for (const int64_t sample : order) {
        std::vector<int64_t>* best = nullptr;
        for (auto& pack : packs) {
            const int64_t tokens = tokens_of(pack, lengths);
            if (tokens + length(sample) <= capacity && (!best || tokens > tokens_of(*best, lengths))) best = &pack;
        }
        if (!best) best = &packs.emplace_back();
        best->push_back(sample);
    }
    return packs;
}

void expect_valid(const PackPlan& plan, const std::vector<int64_t>& lengths, int64_t capacity) {
    std::vector<int> times(lengths.size(), 0);
    for (const auto& pack : packs_of(plan)) {
        EXPECT_FALSE(pack.empty());
        EXPECT_LE(tokens_of(pack, lengths), capacity);
        for (const int64_t i : pack) ++times[static_cast<size_t>(i)];
    }
    EXPECT_EQ(std::count(times.begin(), times.end(), 1), static_cast<int64_t>(lengths.size()));
    const auto tokens = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
    EXPECT_DOUBLE_EQ(plan.fill, tokens / static_cast<double>(plan.packs() * capacity));
}

TEST(Packer, EqualsNaiveBestFitDecreasing) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
        const auto lengths = log_normal_lengths(300, 3, 1, 64, seed);
        std::vector<int64_t> order(lengths.size());
        std::iota(order.begin(), order.end(), 0);
        const PackPlan plan = plan_epoch(lengths, {.packing_length = 64, .window = 100, .shuffle = false}, 0);
        Packs expected;
        for (int w = 0; w < 3; ++w) {
            for (const auto& pack : naive_bfd({order.begin() + w * 100, order.begin() + (w + 1) * 100}, lengths, 64))
                expected.push_back(pack);
        }
        EXPECT_EQ(packs_of(plan), expected);
    }
}

TEST(Packer, EverySampleOnceUnderEveryStrategy) {
    const auto lengths = log_normal_lengths(1001, 4, 1, 256);
    for (const auto strategy : {PackStrategy::bfd, PackStrategy::sequential, PackStrategy::none}) {
        for (const bool shuffle : {false, true}) {
            expect_valid(
                plan_epoch(lengths, {.packing_length = 256, .strategy = strategy, .window = 100, .shuffle = shuffle},
                           2),
                lengths, 256);
        }
    }
}

TEST(Packer, SequentialKeepsTheOrderAndClosesPacksOnlyWhenFull) {
    const std::vector<int64_t> lengths = {4, 6, 1, 5, 5, 10, 2};
    const PackPlan plan =
        plan_epoch(lengths, {.packing_length = 10, .strategy = PackStrategy::sequential, .shuffle = false}, 0);
    EXPECT_EQ(packs_of(plan), (Packs{{0, 1}, {2, 3}, {4}, {5}, {6}}));
}

TEST(Packer, NoneIsOneSamplePerPack) {
    const std::vector<int64_t> lengths = {4, 1, 2};
    EXPECT_EQ(packs_of(plan_epoch(lengths, {.packing_length = 8, .strategy = PackStrategy::none, .shuffle = false}, 0)),
              (Packs{{0}, {1}, {2}}));
}

TEST(Packer, FillsAtLeast97PercentOfLogNormalLengths) {
    for (const int64_t capacity : {2048, 4096, 8192}) {
        for (const double mean : {200.0, 700.0}) {
            const auto lengths = log_normal_lengths(20000, std::log(mean) - 0.5, 1, capacity);
            const PackPlan plan = plan_epoch(lengths, {.packing_length = capacity}, 0);
            EXPECT_GE(plan.fill, 0.97) << capacity << " " << mean;
            EXPECT_LE(plan.fill, 1.0);
        }
    }
}

// The figures come from a separate implementation of Philox, Fisher-Yates and best fit in another language. A plan is
// the same on every platform and must not change in later versions.
TEST(Packer, APlanIsTheSameEverywhere) {
    const std::vector<int64_t> lengths = {7, 3, 9, 4, 4, 1, 6, 2, 8, 5, 3, 10};
    const PackSettings settings{.packing_length = 10, .window = 6, .seed = 42};
    EXPECT_EQ(packs_of(plan_epoch(lengths, settings, 0)), (Packs{{2}, {0, 7, 5}, {11}, {1, 10}, {9, 3}, {6, 4}, {8}}));
    EXPECT_EQ(packs_of(plan_epoch(lengths, settings, 1)), (Packs{{2, 5}, {0, 1}, {6, 4}, {11}, {3, 10}, {9, 7}, {8}}));
}

TEST(Packer, EpochsAndSeedsDifferAndWithoutShuffleNothingDoes) {
    const auto lengths = log_normal_lengths(500, 4, 1, 256);
    PackSettings settings{.packing_length = 256};
    const auto plan = packs_of(plan_epoch(lengths, settings, 0));
    EXPECT_EQ(plan, packs_of(plan_epoch(lengths, settings, 0)));
    EXPECT_NE(plan, packs_of(plan_epoch(lengths, settings, 1)));
    settings.seed = 43;
    EXPECT_NE(plan, packs_of(plan_epoch(lengths, settings, 0)));
    settings.shuffle = false;
    EXPECT_EQ(packs_of(plan_epoch(lengths, settings, 0)), packs_of(plan_epoch(lengths, settings, 1)));
}

TEST(Packer, SettingsThatCannotWork) {
    const std::vector<int64_t> lengths = {5, 12, 7, 30};
    const std::pair<PackSettings, const char*> cases[] = {
        {{.packing_length = 10}, "2 of 4 samples are longer than packing_length 10 (the longest has 30 tokens)"},
        {{.packing_length = 0}, "packing_length is 0, expected at least 1"},
        {{.window = 0}, "packing window is 0, expected at least 1"},
    };
    for (const auto& [settings, message] : cases) {
        try {
            plan_epoch(lengths, settings, 0);
            FAIL() << "accepted: " << message;
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), Exit::config);
            EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
        }
    }
    EXPECT_EQ(plan_epoch({}, {}, 0).packs(), 0);
}

}  // namespace
}  // namespace colonnade
