#pragma once
// The language model objective: weighted cross-entropy over the targets of a batch. It gathers the rows that have a
// target, runs the head on them in chunks (layers/head_loss.h) and returns the gradient of the hidden states.
//
//     loss = sum_i weight_i * nll_i / total
//
// total is the weight of the whole step (all micro-steps and ranks). The loss of each target stays in buffers.nll.
// TokenLoss::dft multiplies nll_i by the probability of the target, held constant (arXiv 2508.05629): tokens that the
// model finds improbable pull less. Evaluation is by nll either way, so that runs compare.

#include "layers/head_loss.h"
#include "train/objectives/objective.h"

namespace colonnade {

class LanguageModelObjective : public Objective {
  public:
    explicit LanguageModelObjective(TokenLoss loss = TokenLoss::nll) : loss_(loss) {}

    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    double total(const StepTotals& totals) const override { return totals.weight; }
    double total(const Batch& batch) const override { return batch.target_weight; }
    std::vector<Metric> metrics(const LossSums& sums, Phase phase) const override;
    std::string figures(const LossSums& sums, Phase phase) const override;

  private:
    TokenLoss loss_;
};

/// The head over all targets, their hidden states already gathered: nll and correct, and in training the gradients by
/// batch.scales. For objectives that add a loss of their own.
HeadLoss head_over_targets(const ObjectiveStep& step);

/// Buffers of the head over `targets` rows, for all objectives that run it.
ObjectiveBuffers lay_out_head(Arena& arena, const ModelConfig& config, int64_t targets, const HeadSettings& settings);

}  // namespace colonnade
