#include "data/rows/advantages.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/device/error.h"

namespace colonnade {
namespace {

/// Keeps a group with hardly any spread from getting advantages without bound. TRL's value.
constexpr double spread_floor = 1e-4;

/// Statistics of the numbers that are not null. Without any, or with one for std, they are null.
struct Moments {
    int64_t count = 0;
    double sum = 0, mean = null_reward, std = null_reward;
    bool equal = true;
};

/// Answers of one group, in their order.
using Members = std::span<const size_t>;

Moments moments_of(const std::vector<double>& values, Members members) {
    Moments m;
    double first = null_reward, squares = 0;
    for (const size_t i : members) {
        if (std::isnan(values[i])) continue;
        if (m.count++ == 0) first = values[i];
        m.sum += values[i];
        m.equal = m.equal && values[i] == first;
    }
    if (m.count == 0) return m;
    m.mean = m.equal ? first : m.sum / static_cast<double>(m.count);
    for (const size_t i : members)
        if (!std::isnan(values[i])) squares += (values[i] - m.mean) * (values[i] - m.mean);
    if (m.count > 1) m.std = std::sqrt(squares / static_cast<double>(m.count - 1));
    return m;
}

/// (value - mean) / (std + 1e-4) in place; nothing becomes of null.
void normalize(std::vector<double>& values, Members members, const Moments& m) {
    for (const size_t i : members) values[i] = (values[i] - m.mean) / (m.std + spread_floor);
}

/// All answers, sorted by group, and the parts of each group.
struct Groups {
    std::vector<size_t> order;
    std::vector<Members> members;

    explicit Groups(std::span<const int64_t> groups) : order(groups.size()) {
        std::iota(order.begin(), order.end(), size_t{0});
        std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return groups[a] < groups[b]; });
        for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
            while (end < order.size() && groups[order[end]] == groups[order[begin]]) ++end;
            members.emplace_back(order.data() + begin, end - begin);
        }
    }
};

void check(const RewardTable& t, const AdvantageSettings& s) {
    const size_t answers = t.groups.size(), functions = t.weights.size();
    require(functions > 0 && t.rewards.size() == answers * functions, "{} rewards of {} answers by {} functions",
            t.rewards.size(), answers, functions);
    require(t.penalties.empty() || t.penalties.size() == answers, "{} penalties of {} answers", t.penalties.size(),
            answers);
    for (const double weight : t.weights) require(std::isfinite(weight), "a weight of {}", weight);
    require(s.clip_min <= s.clip_max, "rewards between {} and {}", s.clip_min, s.clip_max);
    for (size_t i = 0; i < t.rewards.size(); ++i)
        if (std::abs(t.rewards[i]) > max_reward)
            fail(Exit::data, "answer {}: reward {} of function {} is beyond {}", i / functions, t.rewards[i],
                 i % functions, max_reward);
    for (size_t i = 0; i < t.penalties.size(); ++i)
        if (!(std::abs(t.penalties[i]) <= max_reward))
            fail(Exit::data, "answer {}: penalty {} is not a number up to {}", i, t.penalties[i], max_reward);
}

/// What one function gave to each answer.
std::vector<double> column(const RewardTable& t, size_t function) {
    std::vector<double> values(t.groups.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = t.rewards[i * t.weights.size() + function];
    return values;
}

/// Adds a function's part to each sum. Null adds 0 to an answer that others scored.
void add(std::vector<double>& sums, const std::vector<double>& values, double weight) {
    for (size_t i = 0; i < sums.size(); ++i) {
        if (std::isnan(values[i])) continue;
        sums[i] = (std::isnan(sums[i]) ? 0 : sums[i]) + weight * values[i];
    }
}

/// R of each answer.
std::vector<double> total_rewards(const RewardTable& t) {
    std::vector<double> totals(t.groups.size(), null_reward);
    for (size_t f = 0; f < t.weights.size(); ++f) add(totals, column(t, f), t.weights[f]);
    return totals;
}

void clip_and_subtract_penalties(std::vector<double>& totals, const RewardTable& t, const AdvantageSettings& s) {
    for (size_t i = 0; i < totals.size(); ++i) {
        if (std::isnan(totals[i])) continue;
        totals[i] = std::clamp(totals[i], s.clip_min, s.clip_max);
        if (!t.penalties.empty()) totals[i] -= t.penalties[i];
    }
}

/// The weighted sum of each function's rewards, normalised in their group.
std::vector<double> normalized_sums(const RewardTable& t, const Groups& groups) {
    std::vector<double> sums(t.groups.size(), null_reward);
    for (size_t f = 0; f < t.weights.size(); ++f) {
        std::vector<double> values = column(t, f);
        for (const Members& members : groups.members) {
            Moments m = moments_of(values, members);
            if (m.count == 1) m.std = 0;  // the reward says nothing, but the answer is scored
            normalize(values, members, m);
        }
        add(sums, values, t.weights[f]);
    }
    return sums;
}

/// R - baseline, divided as `scale` says. `values` has R.
void subtract_baseline(std::vector<double>& values, Members members, AdvantageScale scale, double std_of_all) {
    const Moments m = moments_of(values, members);
    if (m.equal) {  // or one answer, which no mean of all advantages counts, or none
        for (const size_t i : members) values[i] = m.count < 2 || std::isnan(values[i]) ? null_reward : 0;
        return;
    }
    const double others = static_cast<double>(m.count - 1);
    for (const size_t i : members) {
        if (scale == AdvantageScale::leave_one_out)
            values[i] -= (m.sum - values[i]) / others;
        else
            values[i] -= m.mean;
        if (scale == AdvantageScale::group) values[i] /= m.std + spread_floor;
        if (scale == AdvantageScale::batch) values[i] /= std_of_all + spread_floor;
    }
}

}  // namespace

Advantages advantages(const RewardTable& table, const AdvantageSettings& settings) {
    check(table, settings);
    const bool by_function = settings.aggregation == RewardAggregation::normalize_then_sum;
    require(!by_function || table.penalties.empty(), "penalties with normalize_then_sum");
    const Groups groups(table.groups);
    Advantages found;
    std::vector<double>& values = found.values = total_rewards(table);
    const Moments given = moments_of(values, groups.order);
    found.groups = std::ssize(groups.members);
    found.unscored = std::ssize(values) - given.count;
    if (given.count > 0) found.reward = given.mean;
    if (given.count > 1) found.reward_std = given.std;
    clip_and_subtract_penalties(values, table, settings);
    for (const Members& members : groups.members) {
        const Moments m = moments_of(values, members);
        found.groups_of_one += m.count == 1;
        found.groups_of_equal += m.count > 1 && m.equal;
    }
    if (by_function) {
        values = normalized_sums(table, groups);
    } else {
        const double std_of_all = moments_of(values, groups.order).std;
        for (const Members& members : groups.members) subtract_baseline(values, members, settings.scale, std_of_all);
    }
    if (by_function || settings.whole_set == WholeSet::normalized) {
        Moments m = moments_of(values, groups.order);
        if (m.count == 1) m.std = 0;
        normalize(values, groups.order, m);
    }
    for (double& value : values)
        if (std::isnan(value)) value = 0;
    return found;
}

}  // namespace colonnade
