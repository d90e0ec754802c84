#pragma once
// Advantages of sampled answers, from their rewards: plain functions of all rewards of a data set, so that packs, ranks
// and steps cannot change them.
//
// The reward R of an answer is the weighted sum of the rewards that k functions gave it. A function may give none
// (null). An answer without any is not scored: no mean or deviation counts it, and its advantage is 0. Answers to the
// same prompt are a group. std divides by n - 1.
//
//     group           (R - mean of the group) / (std of the group + 1e-4)                GRPO, arXiv 2402.03300
//     batch           (R - mean of the group) / (std of all answers + 1e-4)              2508.08221
//     none            R - mean of the group                                              Dr. GRPO, 2503.20783
//     leave_one_out   R - mean of the others of the group                                RLOO, 2402.14740
//
// With normalize_then_sum (2601.05242) the rewards of each function become those of `group` first. Their weighted sum
// is then normalised over all answers. A group with one scored answer, or with equal rewards, says nothing: its
// advantages are exactly 0, or 0 but for rounding if they are normalised over all answers.
//
// The definitions are those of TRL 1.16 (grpo_trainer.py, rloo_trainer.py); its batch is one generation, ours all that
// is given.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace colonnade {

/// A reward that was not given.
constexpr double null_reward = std::numeric_limits<double>::quiet_NaN();
/// Larger rewards are refused: their squares would leave the range of double.
constexpr double max_reward = 1e100;

enum class AdvantageScale { group, batch, none, leave_one_out };
enum class RewardAggregation { sum_then_normalize, normalize_then_sum };
enum class WholeSet { as_it_is, normalized };

struct RewardTable {
    std::span<const double> rewards;  ///< [answers, functions]
    std::span<const int64_t> groups;  ///< [answers], equal for answers to one prompt, in any order
    std::span<const double> weights;  ///< [functions]
    /// [answers] or empty: subtracted from R after clipping; beta times the log-ratio to the reference with RLOO
    std::span<const double> penalties = {};
};

struct AdvantageSettings {
    AdvantageScale scale = AdvantageScale::group;
    /// normalize_then_sum reads no other setting, and takes no penalties.
    RewardAggregation aggregation = RewardAggregation::sum_then_normalize;
    /// R is cut to this range: reward_clip_range of RLOO.
    double clip_min = -std::numeric_limits<double>::infinity(), clip_max = std::numeric_limits<double>::infinity();
    /// normalized: (A - mean) / (std + 1e-4) over all answers at the end: normalize_advantages of RLOO.
    WholeSet whole_set = WholeSet::as_it_is;
};

struct Advantages {
    std::vector<double> values;  ///< [answers]
    int64_t groups = 0;
    int64_t groups_of_one = 0;          ///< with one scored answer
    int64_t groups_of_equal = 0;        ///< with two or more scored answers, all of the same reward
    int64_t unscored = 0;               ///< answers without any reward
    double reward = 0, reward_std = 0;  ///< of R as given, over all scored answers; 0 if too few
};

/// Throws Exit::data for a reward or penalty that is infinite or above max_reward, with the answer's number from 0 and
/// the function's.
Advantages advantages(const RewardTable& table, const AdvantageSettings& settings);

}  // namespace colonnade
