#pragma once
// Single answers with a label (stage kto): the losses of layers/unpaired_formulas.h. The head runs twice over the targets
// of the batch, as for pairs (train/objectives/preference_objective.h), because the gradient of a token depends on its
// whole answer:
//
//     1. logits -> nll of every target -> l of every answer
//     2. loss and d loss / d l of every answer -> one coefficient for every target
//     3. logits again -> coefficient * (softmax - onehot) -> d hidden, d head
//
//     loss = sum over answers of loss(l - l', label, z) / answers of the whole step
//
// z of loss kto comes from mismatched answers (data/store/mismatched_answers.h) of the whole step, or of the whole
// evaluation, in forward passes before the first of these (Learner::add_mismatched()). It is held constant.

#include "layers/unpaired_formulas.h"
#include "train/objectives/objective.h"

namespace colonnade {

class UnpairedObjective : public Objective {
  public:
    explicit UnpairedObjective(const UnpairedSettings& settings) : settings_(settings) {}

    Answers answers() const override { return Answers::labels; }
    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    void measure(const Context& ctx, const ObjectiveStep& step) const override;
    double total(const StepTotals& totals) const override { return static_cast<double>(totals.samples); }
    double total(const Batch& batch) const override { return static_cast<double>(batch.samples); }
    bool needs_reference() const override { return true; }
    bool needs_mismatched() const override { return settings_.loss == UnpairedLoss::kto; }
    /// Without chosen, or rejected, metrics if no answer has that label.
    std::vector<Metric> metrics(const LossSums& sums, Phase phase) const override;
    std::string figures(const LossSums& sums, Phase phase) const override;
    std::optional<double> untrained_loss() const override;

  private:
    UnpairedSettings settings_;
};

}  // namespace colonnade
