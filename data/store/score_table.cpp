#include "data/store/score_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/device/error.h"

namespace colonnade {
namespace {

std::string described(const std::vector<std::string>& names, size_t functions) {
    return names.empty() ? fmt::format("{} without names", functions)
                         : fmt::format("{} ({})", functions, fmt::join(names, ", "));
}

/// The group of each answer, by the number of its first answer; those of different data sets differ.
std::vector<int64_t> numbered(const std::vector<GroupKey>& keys, const std::vector<int64_t>& datasets) {
    std::vector<size_t> order(keys.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto of = [&](size_t i) { return std::tie(datasets[i], keys[i]); };
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return of(a) < of(b); });
    std::vector<int64_t> numbers(keys.size());
    for (size_t i = 0, first = 0; i < order.size(); ++i) {
        if (i == 0 || of(order[i]) != of(order[i - 1])) first = order[i];
        numbers[order[i]] = static_cast<int64_t>(first);
    }
    return numbers;
}

}  // namespace

void ScoreTable::require_like(const Common& later) {
    Common& all = common_;
    if (all.advantage_place.empty()) {
        all.advantage_place = later.advantage_place;
        all.gives_advantage = later.gives_advantage;
    } else if (!later.advantage_place.empty() && later.gives_advantage != all.gives_advantage) {
        fail(Exit::data,
             "{}: found {} advantage, but {} has {}; expected one for every answer (null for none), or none",
             later.advantage_place, later.gives_advantage ? "an" : "no", all.advantage_place,
             all.gives_advantage ? "one" : "none");
    }
    if (later.functions_place.empty()) return;
    if (all.functions_place.empty()) {
        all.functions_place = later.functions_place;
        all.names = later.names;
        all.functions = later.functions;
    } else if (later.functions != all.functions || later.names != all.names) {
        fail(Exit::data,
             "{}: rewards of {} functions, but {} has those of {}; expected the same functions in the same order in "
             "every row, null for one that gave nothing",
             later.functions_place, described(later.names, later.functions), all.functions_place,
             described(all.names, all.functions));
    }
}

void ScoreTable::add(const AnswerScore& score, int64_t dataset, const std::string& place) {
    Common common{.advantage_place = place, .gives_advantage = score.advantage.has_value()};
    // One null alone stands for all functions.
    const bool null_alone = score.rewards.size() == 1 && !score.functions && std::isnan(score.rewards[0]);
    const bool has_rewards = !score.rewards.empty() && !null_alone;
    if (has_rewards) {
        common.functions_place = place;
        if (score.functions) common.names = *score.functions;
        common.functions = score.rewards.size();
    }
    require_like(common);
    groups_.push_back(score.group);
    datasets_.push_back(dataset);
    if (score.advantage) given_.push_back(*score.advantage);
    has_rewards_.push_back(has_rewards);
    if (has_rewards) rewards_.insert(rewards_.end(), score.rewards.begin(), score.rewards.end());
}

void ScoreTable::append(const ScoreTable& later) {
    require_like(later.common_);
    const auto join = [](auto& values, const auto& more) { values.insert(values.end(), more.begin(), more.end()); };
    join(groups_, later.groups_);
    join(datasets_, later.datasets_);
    join(given_, later.given_);
    join(rewards_, later.rewards_);
    join(has_rewards_, later.has_rewards_);
}

/// Rewards of all answers, [answers, functions].
std::vector<double> ScoreTable::table_of(size_t functions) const {
    std::vector<double> table(groups_.size() * functions, null_reward);
    auto next = rewards_.begin();
    for (size_t i = 0; i < groups_.size(); ++i) {
        if (!has_rewards_[i]) continue;
        std::copy_n(next, functions, table.begin() + static_cast<std::ptrdiff_t>(i * functions));
        next += static_cast<std::ptrdiff_t>(functions);
    }
    return table;
}

std::vector<double> ScoreTable::weights_of(const RewardSettings& settings) const {
    const size_t functions = std::max<size_t>(common_.functions, 1);
    if (settings.weights.empty() || common_.functions == 0) return std::vector<double>(functions, 1.0);
    if (settings.weights.size() != functions)
        fail(Exit::config, "reward_weights has {} numbers, but {} has rewards of {} functions", settings.weights.size(),
             common_.functions_place, described(common_.names, functions));
    return settings.weights;
}

RewardCounts ScoreTable::counts_of(const Advantages& found, size_t begin, size_t end) const {
    RewardCounts counts = {.answers = static_cast<int64_t>(end - begin),
                           .groups = found.groups,
                           .groups_of_one = found.groups_of_one,
                           .groups_of_equal = found.groups_of_equal,
                           .unscored = found.unscored,
                           .reward = found.reward,
                           .reward_std = found.reward_std};
    if (!common_.gives_advantage) return counts;
    counts.groups_of_one = counts.groups_of_equal = 0;  // their advantages need not be 0
    const std::span<const double> given = std::span(given_).subspan(begin, end - begin);
    counts.unscored = std::ranges::count_if(given, [](double advantage) { return std::isnan(advantage); });
    counts.given = counts.answers - counts.unscored;
    return counts;
}

ScoredAnswers ScoreTable::finish(const RewardSettings& settings, int64_t data_sets) const {
    const std::vector<double> weights = weights_of(settings), table = table_of(weights.size());
    const std::vector<int64_t> groups = numbered(groups_, datasets_);
    const auto advantages_of = [&](size_t begin, size_t end) {
        return advantages({.rewards = std::span(table).subspan(begin * weights.size(), (end - begin) * weights.size()),
                           .groups = std::span(groups).subspan(begin, end - begin),
                           .weights = weights},
                          settings.advantages);
    };
    ScoredAnswers scored;
    for (size_t i = 0; i < groups.size(); ++i) {
        double reward = null_reward;
        for (size_t f = 0; f < weights.size(); ++f)
            if (const double given = table[i * weights.size() + f]; !std::isnan(given))
                reward = (std::isnan(reward) ? 0 : reward) + weights[f] * given;
        scored.rewards.push_back(static_cast<float>(reward));
    }
    const std::vector<double> values = common_.gives_advantage ? given_ : advantages_of(0, groups.size()).values;
    for (const double value : values) scored.advantages.push_back(std::isnan(value) ? 0 : static_cast<float>(value));
    for (int64_t set = 0; set < data_sets; ++set) {
        const auto answers = std::ranges::equal_range(datasets_, set);
        const auto begin = static_cast<size_t>(answers.begin() - datasets_.begin()), end = begin + answers.size();
        scored.data_sets.push_back(counts_of(advantages_of(begin, end), begin, end));
    }
    return scored;
}

}  // namespace colonnade
