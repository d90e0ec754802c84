#pragma once
// ScoreTable: the scores of all answers of a store, from which their advantages are computed once every row is read
// (data/rows/advantages.h). Memory: 33 bytes an answer and 8 for each reward function; about three times that while
// finish() runs.

#include <cstdint>
#include <string>
#include <vector>

#include "data/rows/advantages.h"
#include "data/rows/answer_score.h"
#include "data/store/store_statistics.h"

namespace colonnade {

/// How rewards become advantages.
struct RewardSettings {
    AdvantageSettings advantages{};
    std::vector<double> weights{};  ///< of the reward functions; empty: all 1
};

/// Of each answer, in order.
struct ScoredAnswers {
    std::vector<float> advantages;
    std::vector<float> rewards;           ///< weighted sums; NaN without any
    std::vector<RewardCounts> data_sets;  ///< of each data set
};

class ScoreTable {
  public:
    /// An answer at `place`. Answers come by data set, in order. Throws Exit::data unless it has rewards of the same
    /// functions as those before, and an advantage if and only if those have one.
    void add(const AnswerScore& score, int64_t dataset, const std::string& place);
    /// Appends the answers of later rows, and throws as add() does.
    void append(const ScoreTable& later);
    int64_t size() const { return static_cast<int64_t>(groups_.size()); }

    /// Groups are those of one data set. Throws Exit::config if there are not as many weights as functions.
    ScoredAnswers finish(const RewardSettings& settings, int64_t data_sets) const;

  private:
    /// What all answers have in common, and the first that shows it.
    struct Common {
        std::string advantage_place{};  ///< empty: no answer yet
        bool gives_advantage = false;
        std::string functions_place{};  ///< empty: no reward yet
        std::vector<std::string> names{};
        size_t functions = 0;
    };
    void require_like(const Common& later);
    std::vector<double> table_of(size_t functions) const;
    std::vector<double> weights_of(const RewardSettings& settings) const;
    RewardCounts counts_of(const Advantages& found, size_t begin, size_t end) const;

    Common common_;
    std::vector<GroupKey> groups_;
    std::vector<int64_t> datasets_;
    std::vector<double> given_;    ///< advantages, NaN for null; empty unless they are given
    std::vector<double> rewards_;  ///< of the answers that have some, end to end
    std::vector<bool> has_rewards_;
};

}  // namespace colonnade
