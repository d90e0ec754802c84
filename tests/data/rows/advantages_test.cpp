// Advantages against TRL's values (tests/golden/make_policy_golden.py), and what they promise beyond them.

#include "data/rows/advantages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "engine/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

const std::map<std::string, AdvantageScale> scales = {{"group", AdvantageScale::group},
                                                      {"batch", AdvantageScale::batch},
                                                      {"none", AdvantageScale::none},
                                                      {"leave_one_out", AdvantageScale::leave_one_out}};
const std::vector<double> one_function = {1};

/// Rewards of one function.
std::vector<double> values_of(const std::vector<double>& rewards, const std::vector<int64_t>& groups,
                              AdvantageScale scale) {
    return advantages({rewards, groups, one_function}, {.scale = scale}).values;
}

TEST(Advantages, EqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    std::set<std::string> seen;
    for (const Json& g : golden.at("advantages")) {
        SCOPED_TRACE(g.dump());
        std::vector<double> rewards;
        int64_t unscored = 0;
        for (const Json& row : g.at("rewards")) {
            for (const Json& reward : row) rewards.push_back(reward.is_null() ? null_reward : reward.get<double>());
            unscored += std::all_of(row.begin(), row.end(), [](const Json& reward) { return reward.is_null(); });
        }
        const std::vector<double> weights = g.at("weights"), penalties = g.at("penalties"), values = g.at("values");
        const std::vector<int64_t> groups = g.at("groups");
        AdvantageSettings settings{.scale = scales.at(g.at("scale"))};
        if (g.at("aggregation") == "normalize_then_sum") settings.aggregation = RewardAggregation::normalize_then_sum;
        if (g.at("normalize_advantages")) settings.whole_set = WholeSet::normalized;
        if (!g.at("clip").is_null()) {
            settings.clip_min = g.at("clip")[0];
            settings.clip_max = g.at("clip")[1];
        }
        const Advantages found = advantages({rewards, groups, weights, penalties}, settings);
        ASSERT_EQ(found.values.size(), values.size());
        for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(found.values[i], values[i], 2e-12) << i;
        EXPECT_NEAR(found.reward, g.at("reward").get<double>(), 1e-14);
        EXPECT_NEAR(found.reward_std, g.at("reward_std").get<double>(), 1e-14);
        EXPECT_EQ(found.groups, 4);
        const bool alone = values.size() == 4;
        EXPECT_EQ(found.groups_of_one, alone ? 4 : 1);
        EXPECT_EQ(found.groups_of_equal, alone ? 0 : 1);
        EXPECT_EQ(found.unscored, unscored);
        seen.insert(g.at("scale").get<std::string>() + g.at("aggregation").get<std::string>());
    }
    EXPECT_EQ(seen.size(), 5u);
}

TEST(Advantages, GroupsNeedNoOrder) {
    const std::vector<double> rewards = {1, 5, 2, 9, 4, 3};
    for (const auto& [name, scale] : scales) {
        const auto apart = values_of(rewards, {7, -2, 7, -2, 7, -2}, scale);
        const auto sorted = values_of({1, 2, 4, 5, 9, 3}, {0, 0, 0, 1, 1, 1}, scale);
        const size_t place[] = {0, 3, 1, 4, 2, 5};
        for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(apart[i], sorted[place[i]], 1e-15) << name;
    }
    const auto others = values_of(rewards, {7, -2, 7, -2, 7, -2}, AdvantageScale::leave_one_out);
    EXPECT_EQ(others[0], 1 - (2 + 4) / 2.0);
    EXPECT_EQ(others[3], 9 - (5 + 3) / 2.0);
}

TEST(Advantages, GroupsThatSayNothingHaveExactZeros) {
    // 0.1 three times has a sum that is not 0.3.
    const std::vector<double> rewards = {0.1, 0.1, 0.1, 8, null_reward, null_reward, null_reward, 1, 2};
    const std::vector<int64_t> groups = {0, 0, 0, 1, 1, 2, 2, 3, 3};
    for (const auto& [name, scale] : scales) {
        const Advantages found = advantages({rewards, groups, one_function}, {.scale = scale});
        for (size_t i = 0; i < 7; ++i) EXPECT_EQ(found.values[i], 0) << name << " " << i;
        EXPECT_LT(found.values[7], 0) << name;
        EXPECT_EQ(found.values[8], -found.values[7]) << name;
        EXPECT_EQ(found.groups, 4);
        EXPECT_EQ(found.groups_of_one, 1);
        EXPECT_EQ(found.groups_of_equal, 1);
        EXPECT_EQ(found.unscored, 3);
    }
}

TEST(Advantages, EqualRewardsOfEachFunctionAddExactZeros) {
    const std::vector<double> rewards = {0.1, 0.7, 0.1, 0.7, 0.1, 0.7}, weights = {1, 3};
    const std::vector<int64_t> groups = {0, 0, 0};
    const AdvantageSettings settings{.aggregation = RewardAggregation::normalize_then_sum};
    EXPECT_EQ(advantages({rewards, groups, weights}, settings).values, std::vector<double>(3));
}

TEST(Advantages, DeviationOfAllIsOfWhatWasClipped) {
    const std::vector<double> rewards = {0, 1, 0, 900}, clipped = {0, 1, 0, 1};
    const std::vector<int64_t> groups = {0, 0, 1, 1};
    const Advantages found =
        advantages({rewards, groups, one_function}, {.scale = AdvantageScale::batch, .clip_max = 1});
    EXPECT_EQ(found.values, values_of(clipped, groups, AdvantageScale::batch));
    EXPECT_EQ(found.reward, 901 / 4.0) << "the mean is of the rewards as given";
}

TEST(Advantages, OfNothingAndOfOneAnswer) {
    EXPECT_TRUE(values_of({}, {}, AdvantageScale::batch).empty());
    for (const auto& [name, scale] : scales) {
        EXPECT_EQ(values_of({3}, {0}, scale), std::vector<double>{0}) << name;
        EXPECT_EQ(values_of({null_reward}, {0}, scale), std::vector<double>{0}) << name;
    }
}

TEST(Advantages, StayFiniteForLargeRewardsAndRefuseLarger) {
    for (const auto& [name, scale] : scales)
        for (const double value : values_of({max_reward, -max_reward, max_reward, 0}, {0, 0, 0, 0}, scale))
            EXPECT_TRUE(std::isfinite(value)) << name;
    for (const double bad : {1e101, -static_cast<double>(INFINITY)})
        expect_error(Exit::data, "answer 1: reward", [&] { values_of({0, bad}, {0, 0}, AdvantageScale::group); });
    const std::vector<double> rewards = {1, 2}, penalties = {0, null_reward};
    const std::vector<int64_t> groups = {0, 0};
    expect_error(Exit::data, "answer 1: penalty nan", [&] {
        advantages({rewards, groups, one_function, penalties}, {});
    });
    expect_error(Exit::internal, "penalties with normalize_then_sum", [&] {
        advantages({rewards, groups, one_function, rewards}, {.aggregation = RewardAggregation::normalize_then_sum});
    });
}

}  // namespace
}  // namespace colonnade
