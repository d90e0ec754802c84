#pragma once
// BestModel: which evaluation of a run was the best, and whether the run should stop early. Both are decided as by
// transformers 5 (Trainer._determine_best_metric, EarlyStoppingCallback):
//
//     best          a metric that is better than all before it, by however little
//     improvement   a metric that is better than the best one before it by more than `threshold`, or the first one
//     stop          `patience` evaluations in a row without improvement
//
// NaN is never better. Numbers are those of the whole run, so all ranks decide the same.

#include <cstdint>
#include <string>

namespace colonnade {

struct BestRules {
    std::string metric{};  ///< as evaluation names it: eval_loss; empty: nothing is compared
    bool greater_is_better = false;
    int64_t patience = 0;  ///< 0: never stops early
    double threshold = 0;
};

/// Part of a checkpoint.
struct BestRecord {
    std::string metric{};  ///< empty: nothing was compared yet
    bool greater_is_better = false;
    double value = 0;                 ///< the best metric; infinite if each one was NaN
    int64_t step = 0;                 ///< of the best metric; 0: there is none
    int64_t without_improvement = 0;  ///< evaluations since the last improvement
    /// The output_dir that has the checkpoint of `step`. Empty: the one that has the checkpoint with this record.
    std::string output_dir{};
    bool operator==(const BestRecord&) const = default;
};

class BestModel {
  public:
    /// `record`: that of the run that is resumed. One about another metric is dropped.
    explicit BestModel(BestRules rules = {}, BestRecord record = {});

    /// Takes the metric of an evaluation. Returns whether it is the best so far.
    bool add(int64_t step, double value);
    bool should_stop() const { return rules_.patience > 0 && record_.without_improvement >= rules_.patience; }
    /// The checkpoint of the best step is lost: the next number is the best. The count of evaluations stays.
    void forget();
    const BestRules& rules() const { return rules_; }
    const BestRecord& record() const { return record_; }
    /// "2 of 3 evaluations without improvement"; empty if there is none, or if the run never stops early.
    std::string text() const;

  private:
    bool better(double value) const;

    BestRules rules_;
    BestRecord record_;
};

}  // namespace colonnade
