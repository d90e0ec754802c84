#pragma once
// What a model says as a teacher: of every target the tokens with the largest logits and their log-probabilities
// (layers/largest_logits.h). It has no loss; Learner::teach() runs it.

#include "train/objectives/objective.h"

namespace colonnade {

class TeachingObjective : public Objective {
  public:
    /// `top`: tokens of each list. Logits are divided by `temperature`.
    TeachingObjective(int64_t top, double temperature) : top_(top), temperature_(temperature) {}

    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    /// Fills buffers.teacher_ids and buffers.teacher_log_probs.
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    double total(const StepTotals& totals) const override { return totals.weight; }
    double total(const Batch& batch) const override { return batch.target_weight; }
    std::vector<Metric> metrics(const LossSums&, Phase) const override { return {}; }
    std::string figures(const LossSums&, Phase) const override { return ""; }

  private:
    int64_t top_;
    double temperature_;
};

}  // namespace colonnade
