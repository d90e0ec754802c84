#pragma once
// Objective: what a stage learns. It takes the hidden states of a batch, adds what they came to up in sums, and hands
// their gradient back. One implementation per stage:
//
//     LanguageModelObjective   pt, sft   train/objectives/language_model_objective.h
//     PreferenceObjective      dpo       train/objectives/preference_objective.h
//     RewardObjective          rm        train/objectives/reward_objective.h
//
// The loss of a step is the sum over its micro-steps (and ranks) divided by total(), which is known before the first
// forward: so the parts simply add up.

#include <memory>
#include <string>
#include <vector>

#include "data/packing/packer.h"
#include "train/model/transformer.h"
#include "train/objectives/batch_tensors.h"
#include "train/objectives/branch_tensors.h"
#include "train/objectives/loss_sums.h"
#include "train/objectives/metric.h"

namespace colonnade {

/// Memory of an objective for one batch. Fields that an objective has no use for stay empty.
struct ObjectiveBuffers {
    Tensor hidden, dhidden;  ///< [targets or answers, hidden] gathered rows; dhidden only in training
    Tensor logits;           ///< [chunk, vocab]
    Tensor nll;              ///< f64 [targets], unweighted
    Tensor correct;          ///< u8 [targets]
    BranchTensors branch;
    Tensor answers;  ///< f64 [branches]: log-probabilities, or rewards
    Tensor slopes;   ///< f64 [branches]: d loss / d answers
};

struct HeadSettings {
    int64_t chunk;  ///< rows of the head whose logits exist at one time
    DType dtype;
    bool training;
};

struct ObjectiveStep {
    const Transformer& model;
    Activations& acts;
    const ObjectiveBuffers& buffers;
    const BatchTensors& batch;
    Tensor sums{};                              ///< f64 [LossSums::count], added to
    double total = 0;                           ///< of the whole step
    const ModelGradients* gradients = nullptr;  ///< null: evaluation
};

class Objective {
  public:
    virtual ~Objective() = default;

    virtual ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                     const HeadSettings& settings) const = 0;
    /// Brings what it needs of a batch to the device. Throws Exit::data for a batch that it cannot learn from.
    virtual void fill(const Context&, const ObjectiveBuffers&, const Batch&) const {}
    /// Loss of acts.hidden into `sums`; in training also fills acts.dhidden and adds the head's gradient.
    virtual void run(const Context& ctx, const ObjectiveStep& step) const = 0;

    /// What the loss is divided by.
    virtual double total(const StepTotals& totals) const { return totals.pairs; }
    virtual double total(const Batch& batch) const { return batch.pairs; }

    /// Objectives over answers: the log-probability, or the reward, of every branch into buffers.answers.
    virtual void measure(const Context& ctx, const ObjectiveStep& step) const;
    /// Does it compare with a reference model, by Batch::reference or LearnerOptions::reference?
    virtual bool needs_reference() const { return false; }
    /// Makes the answers just measured the reference of the batch, on the device.
    virtual void take_reference(const Context& ctx, const ObjectiveBuffers& buffers) const;

    /// What to log beside the loss, under TRL's names; `evaluation`: without the prefix eval_.
    virtual std::vector<Metric> metrics(const LossSums& sums, bool evaluation) const = 0;
    /// The same in a few words: "loss 0.6421, accuracy 71.2 %, margin 0.113".
    virtual std::string figures(const LossSums& sums, bool evaluation) const = 0;
    /// The loss of a policy that is still the reference, where that is known.
    virtual std::optional<double> untrained_loss() const { return {}; }
};

}  // namespace colonnade
