#pragma once
// Preferences (stage dpo): the losses of layers/preference_formulas.h over pairs of answers. The gradient of a token's
// log-probability depends on both whole answers, so the head runs twice over the targets of the batch:
//
//     1. logits -> nll of every target -> l of every answer (sum over its targets)
//     2. loss and d loss / d l of every pair -> one coefficient for every target
//     3. logits again -> coefficient * (softmax - onehot) -> d hidden, d head
//
// This is exact, and costs one more matrix product with the head than language modelling: a third of the head's time.
// Keeping the logits instead would take memory for targets x vocab numbers. Evaluation and the reference need only the
// first pass.
//
//     loss = sum over pairs of weight mix(l_chosen, l_rejected) / sum of the weights of the pairs of the whole step

#include "layers/preference_formulas.h"
#include "train/objectives/objective.h"

namespace colonnade {

class PreferenceObjective : public Objective {
  public:
    explicit PreferenceObjective(const PreferenceMix& mix) : mix_(mix) {}

    Answers answers() const override { return Answers::pairs; }
    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    void measure(const Context& ctx, const ObjectiveStep& step) const override;
    bool needs_reference() const override;
    std::vector<Metric> metrics(const LossSums& sums, Phase phase) const override;
    std::string figures(const LossSums& sums, Phase phase) const override;
    std::optional<double> untrained_loss() const override;

  private:
    bool has(PreferenceLoss loss) const;
    PreferenceMix mix_;
};

}  // namespace colonnade
