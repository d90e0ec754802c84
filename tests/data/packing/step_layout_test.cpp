// Which packs a step holds, its totals, and what its ranks have to do.

#include "data/packing/step_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "engine/device/philox.h"
#include "tests/support/log_normal_lengths.h"

namespace colonnade {
namespace {

/// Of samples of one sequence.
std::vector<int64_t> visible_alone(const std::vector<int64_t>& lengths) {
    std::vector<int64_t> visible;
    for (const int64_t length : lengths) visible.push_back(visible_pairs(length));
    return visible;
}

TEST(StepLayout, AStepHoldsTheSamePacksForAnyNumberOfRanks) {
    const auto lengths = log_normal_lengths(400, 4, 1, 256);
    const PackPlan plan = plan_epoch(lengths, {.packing_length = 256}, 0);
    const auto packs_in_step = [&](const StepLayout& layout, int64_t step) {
        std::set<std::vector<int64_t>> packs;
        for (int64_t micro = 0; micro < layout.accumulation; ++micro) {
            for (int64_t rank = 0; rank < layout.ranks; ++rank) {
                for (int64_t b = 0; b < layout.per_device_batch; ++b) {
                    const auto pack = plan.pack(layout.first_pack(step, micro, rank) + b);
                    if (!pack.empty()) packs.emplace(pack.begin(), pack.end());
                }
            }
        }
        return packs;
    };
    const StepLayout whole{.per_device_batch = 12};
    ASSERT_NE(plan.packs() % 12, 0);  // the last step is filled up with empty packs
    size_t packs = 0;
    for (int64_t step = 0; step < whole.steps(plan); ++step) {
        const auto expected = packs_in_step(whole, step);
        for (const StepLayout layout :
             {StepLayout{3, 4, 1}, StepLayout{3, 1, 4}, StepLayout{1, 2, 6}, StepLayout{2, 3, 2}}) {
            EXPECT_EQ(layout.steps(plan), whole.steps(plan));
            EXPECT_EQ(packs_in_step(layout, step), expected);
        }
        packs += expected.size();
    }
    EXPECT_EQ(packs, static_cast<size_t>(plan.packs()));
    EXPECT_TRUE(plan.pack(plan.packs() + 100).empty());
}

TEST(StepLayout, StepTotalsSumToTheWholeEpoch) {
    const auto lengths = log_normal_lengths(400, 4, 1, 256);
    std::vector<double> weights;
    std::vector<PairTotals> pairs;
    for (const int64_t n : lengths) {
        weights.push_back(static_cast<double>(n) / 2);
        pairs.push_back(n % 2 ? PairTotals{2, 3} : PairTotals{});
    }
    const PackPlan plan = plan_epoch(lengths, {.packing_length = 256}, 0);
    const StepLayout layout{2, 3, 1};
    StepTotals sum;
    for (int64_t step = 0; step < layout.steps(plan); ++step) {
        const StepTotals totals = step_totals(plan, layout, step, lengths, weights, pairs);
        EXPECT_EQ(totals.weight * 2, static_cast<double>(totals.tokens));
        EXPECT_LE(totals.tokens, 6 * 256);
        sum.samples += totals.samples;
        sum.tokens += totals.tokens;
        sum.pairs += totals.pairs;
        sum.pair_weight += totals.pair_weight;
        sum.ranking_weight += totals.ranking_weight;
    }
    const auto odd = static_cast<double>(std::ranges::count_if(lengths, [](int64_t n) { return n % 2; }));
    EXPECT_GT(odd, 0);
    EXPECT_EQ(sum.pairs, 2 * odd);
    EXPECT_EQ(sum.pair_weight, 3 * odd);
    EXPECT_EQ(sum.ranking_weight, 1.5 * odd);
    EXPECT_EQ(sum.samples, 400);
    EXPECT_EQ(sum.tokens, std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
}

TEST(StepLayout, ComputedTokensAreCountedOnce) {
    PrefixOrder prefixes{.order = {0, 1, 2, 3}, .lcp = {0, 90, 90, 90}};
    const std::vector<int64_t> lengths(4, 100);
    const std::vector<double> weights(4, 1.0);
    const PackPlan plan = Packer(lengths, {.packing_length = 120}, prefixes).plan(0);
    const StepTotals totals = step_totals(plan, {.accumulation = 4}, 0, lengths, weights, std::vector<PairTotals>(4));
    EXPECT_EQ(totals.tokens, 400);
    EXPECT_EQ(totals.computed, 2 * 90 + 4 * 10);  // two rows of two
}

TEST(StepLayout, CostCountsTokensAndPairs) {
    // A pack of a sample of 30,000 tokens, and one of two samples that have 10,000 in common.
    const std::vector<int64_t> lengths = {30000, 20000, 15000};
    const PackPlan plan{.samples = {0, 1, 2},
                        .shared = {0, 0, 10000},
                        .begins = {0, 1, 3},
                        .tokens = {30000, 25000},
                        .represented = 65000,
                        .computed = 55000,
                        .fill = 1};
    const auto triangle = [](int64_t n) { return n * (n + 1) / 2; };
    const std::vector<int64_t> visible = visible_alone(lengths);
    EXPECT_EQ(pack_pairs(plan, 1, visible), triangle(20000) + triangle(15000) - triangle(10000));
    EXPECT_EQ(pack_cost(plan, 0, visible), 30000 + triangle(30000) / 16384);
    EXPECT_EQ(pack_cost(plan, 1, visible), 25000 + (triangle(20000) + triangle(15000) - triangle(10000)) / 16384);
}

/// Packs of a step as sets of samples.
std::multiset<std::vector<int64_t>> packs_of_step(const PackPlan& plan, const StepLayout& layout, int64_t step) {
    std::multiset<std::vector<int64_t>> packs;
    for (int64_t p = step * layout.packs_per_step(); p < (step + 1) * layout.packs_per_step(); ++p)
        packs.emplace(plan.pack(p).begin(), plan.pack(p).end());
    return packs;
}

TEST(StepLayout, SlowestOverMeanIsThatOfWholeSteps) {
    // Packs of one sample each; what they see counts nothing.
    const auto plan_of = [](const std::vector<int64_t>& tokens) {
        PackPlan plan;
        plan.tokens = tokens;
        for (int64_t i = 0; i < std::ssize(tokens); ++i) {
            plan.samples.push_back(i);
            plan.shared.push_back(0);
            plan.begins.push_back(i + 1);
        }
        return plan;
    };
    const auto waiting = [&](const std::vector<int64_t>& tokens, const StepLayout& layout) {
        return slowest_over_mean(plan_of(tokens), layout, std::vector<int64_t>(tokens.size()));
    };
    EXPECT_EQ(waiting({70, 10, 30, 5}, {.accumulation = 2}), 1);
    EXPECT_EQ(waiting({30, 10}, {.ranks = 2}), 30 / 20.0);
    EXPECT_EQ(waiting({30, 10, 30, 10}, {.ranks = 2}), 30 / 20.0);
    EXPECT_EQ(waiting({40, 30, 20, 10}, {.accumulation = 2, .ranks = 2}), 1);              // 40 + 10, 30 + 20
    EXPECT_EQ(waiting({40, 30, 20}, {.accumulation = 2, .ranks = 2}), 50 / 45.0);          // 40, 30 + 20
    EXPECT_EQ(waiting({40, 10, 20, 20}, {.per_device_batch = 2, .ranks = 2}), 80 / 60.0);  // padded: 2 x 40, 2 x 20
    const PackPlan plan = plan_of({10000, 10000});
    EXPECT_DOUBLE_EQ(slowest_over_mean(plan, {.ranks = 2}, std::vector<int64_t>{0, 2000 * pairs_like_a_token}),
                     12000 / 11000.0);
}

TEST(StepLayout, DealingKeepsTheStepsAndMakesRanksAlike) {
    const auto lengths = log_normal_lengths(5000, 6, 1.2, 8192);
    const std::vector<int64_t> visible = visible_alone(lengths);
    const PackPlan plan = plan_epoch(lengths, {.packing_length = 8192, .window = 300}, 0);
    for (const StepLayout layout :
         {StepLayout{1, 4, 8}, StepLayout{2, 2, 4}, StepLayout{3, 1, 5}, StepLayout{4, 3, 1}}) {
        PackPlan dealt = plan;
        deal_packs(dealt, layout, visible);
        ASSERT_EQ(dealt.packs(), plan.packs());
        for (int64_t step = 0; step < layout.steps(plan); ++step)
            ASSERT_EQ(packs_of_step(dealt, layout, step), packs_of_step(plan, layout, step));
        for (int64_t p = 0; p < plan.packs(); ++p) {
            int64_t tokens = 0;
            for (const int64_t s : dealt.pack(p)) tokens += lengths[static_cast<size_t>(s)];
            ASSERT_EQ(dealt.tokens[static_cast<size_t>(p)], tokens);
        }
        const double before = slowest_over_mean(plan, layout, visible) - 1,
                     after = slowest_over_mean(dealt, layout, visible) - 1;
        EXPECT_LE(after, 0.6 * before);
    }
}

TEST(StepLayout, DealtOrderDoesNotDependOnRanks) {
    const auto lengths = log_normal_lengths(400, 4, 1, 256);
    const PackPlan plan = plan_epoch(lengths, {.packing_length = 256}, 0);
    const std::vector<int64_t> visible = visible_alone(lengths);
    PackPlan one = plan, two = plan, four = plan;
    deal_packs(one, {.accumulation = 4, .ranks = 1}, visible);
    deal_packs(two, {.accumulation = 2, .ranks = 2}, visible);
    deal_packs(four, {.accumulation = 1, .ranks = 4}, visible);
    EXPECT_NE(one.samples, plan.samples);
    EXPECT_EQ(one.samples, two.samples);
    EXPECT_EQ(one.samples, four.samples);
    EXPECT_EQ(one.begins, four.begins);
    PackPlan single = plan;
    deal_packs(single, {}, visible);
    EXPECT_EQ(single.samples, plan.samples);
}

}  // namespace
}  // namespace colonnade
