#pragma once
// The language model objective: weighted cross-entropy over the batch's target list. Gathers the rows that carry a
// target, runs the head on them in chunks (layers/head_loss.h) and hands the gradient of the hidden states back.
//
//     loss = sum_i weight_i * nll_i / total
//
// total is the weight of the whole global step (all micro-steps and ranks). Each target's loss stays in buffers.nll.

#include "train/objectives/objective.h"

namespace colonnade {

class LanguageModelObjective : public Objective {
  public:
    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    double total(const StepTotals& totals) const override { return totals.weight; }
    double total(const Batch& batch) const override { return batch.target_weight; }
    std::vector<Metric> metrics(const LossSums& sums, bool evaluation) const override;
    std::string figures(const LossSums& sums, bool evaluation) const override;
};

/// What the head needs over `targets` rows, for this objective and others that run it.
ObjectiveBuffers lay_out_head(Arena& arena, const ModelConfig& config, int64_t targets, const HeadSettings& settings);

}  // namespace colonnade
