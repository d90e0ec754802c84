#pragma once
// Preferences (stage dpo): the losses of layers/preference_formulas.h over pairs of answers. The slope of a token's
// log-probability depends on both whole answers, so the head runs twice over the batch's targets:
//
//     1. logits -> nll of every target -> l of every answer (sum over its targets)
//     2. per pair loss and d loss / d l -> one coefficient a target
//     3. logits again -> coefficient * (softmax - onehot) -> d hidden, d head
//
// That is exact, and costs one more product with the head than language modelling: a third of the head's time. Keeping
// the logits instead would take targets x vocab numbers of memory. Evaluation and the reference need the first pass only.
//
//     loss = sum over pairs of mix(l_chosen, l_rejected) / pairs of the whole global step

#include "layers/preference_formulas.h"
#include "train/objectives/objective.h"

namespace colonnade {

class PreferenceObjective : public Objective {
  public:
    explicit PreferenceObjective(const PreferenceMix& mix) : mix_(mix) {}

    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    void fill(const Context& ctx, const ObjectiveBuffers& buffers, const Batch& batch) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    void measure(const Context& ctx, const ObjectiveStep& step) const override;
    bool needs_reference() const override;
    void take_reference(const Context& ctx, const ObjectiveBuffers& buffers) const override;
    std::vector<Metric> metrics(const LossSums& sums, bool evaluation) const override;
    std::string figures(const LossSums& sums, bool evaluation) const override;
    std::optional<double> untrained_loss() const override;

  private:
    bool has(PreferenceLoss loss) const;
    PreferenceMix mix_;
};

}  // namespace colonnade
