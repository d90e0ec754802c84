#pragma once
// The objective of distillation: a student learns the probabilities that a teacher gives to the tokens in the place of
// each target. A batch brings the teacher's lists of the most probable ones (Batch::teacher).
//
//     loss = sum_i weight_i (divergence_weight D_i + nll_weight nll_i) / total
//
// D_i is the divergence of layers/distillation_formulas.h over the list and one bucket for all other tokens: the forward
// KL for beta 0, the reverse KL for beta 1, and the generalised JSD between. nll_i is the cross-entropy of the text's
// token. total is the weight of the whole step (all micro-steps and ranks).

#include "train/objectives/objective.h"

namespace colonnade {

struct DistillationOptions {
    double beta = 0;
    double temperature = 1;  ///< logits are divided by it, as the teacher's were
    double divergence_weight = 1, nll_weight = 0;
};

class DistillationObjective : public Objective {
  public:
    explicit DistillationObjective(const DistillationOptions& options) : options_(options) {}

    Answers answers() const override { return Answers::teacher; }
    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    double total(const StepTotals& totals) const override { return totals.weight; }
    double total(const Batch& batch) const override { return batch.target_weight; }
    std::vector<Metric> metrics(const LossSums& sums, Phase phase) const override;
    std::string figures(const LossSums& sums, Phase phase) const override;

  private:
    DistillationOptions options_;
};

}  // namespace colonnade
