#pragma once
// Objective: what a stage learns. It reads the hidden states of a batch, adds the loss to sums, and returns the
// gradient of the hidden states. Each stage has one implementation:
//
//     LanguageModelObjective   pt, sft   train/objectives/language_model_objective.h
//     PreferenceObjective      dpo       train/objectives/preference_objective.h
//     RewardObjective          rm        train/objectives/reward_objective.h
//     UnpairedObjective        kto       train/objectives/unpaired_objective.h
//     PolicyObjective          grpo      train/objectives/policy_objective.h
//     DistillationObjective    distill   train/objectives/distillation_objective.h
//
// The loss of a step is the sum over its micro-steps (and ranks) divided by total(), which is known before the first
// forward, so that losses and gradients of micro-steps simply add up.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/packing/step_layout.h"
#include "train/objectives/device_batch.h"
#include "train/objectives/loss_sums.h"
#include "train/objectives/metric.h"

namespace colonnade {

/// Memory of an objective for one batch. Tensors that an objective does not use stay empty.
struct ObjectiveBuffers {
    Tensor logits;       ///< [chunk, vocab]
    Tensor nll;          ///< f64 [targets], unweighted
    Tensor correct;      ///< u8 [targets]
    Tensor divergences;  ///< f64 [targets]: from a teacher, unweighted
    Tensor answers;      ///< f64 [sequences]: log-probabilities, or rewards in the order of DeviceBatch::places
    Tensor slopes;       ///< f64 [sequences]: d loss / d answers
    Tensor pair_slopes;  ///< f64 [pairs, 2]: d loss / d answers of each pair
    // Of a teacher that is asked:
    Tensor teacher_ids;        ///< i32 [targets, k]
    Tensor teacher_log_probs;  ///< f32 [targets, k]
    // Of a policy:
    Tensor entropy;      ///< f64 [targets]
    Tensor term_slopes;  ///< f64 [terms]: d loss / d log-probability of each
    Tensor importance;   ///< f32 [terms]
    Tensor numbers;      ///< f64 [sequences, PolicyNumbers::count]
};

struct HeadSettings {
    int64_t chunk;  ///< rows of the head whose logits exist at a time
    DType dtype;
    bool training;
};

struct ObjectiveStep {
    const Transformer& model;
    Activations& acts;  ///< hidden and dhidden have a row for each of batch.input.rows
    const ObjectiveBuffers& buffers;
    const DeviceBatch& batch;
    Tensor sums{};                              ///< f64 [LossSums::count], added to
    double total = 0;                           ///< what the loss of the whole step is divided by
    const ModelGradients* gradients = nullptr;  ///< null: evaluation
    Tensor mismatched{};                        ///< f64 [1]: sum of log-ratios, if needs_mismatched() ...
    double mismatched_count = 0;                ///< ... over so many mismatched answers
};

/// The kind of pass that metrics and figures describe.
enum class Phase { training, evaluation };

class Objective {
  public:
    virtual ~Objective() = default;

    /// What it reads about the answers of a batch.
    virtual Answers answers() const { return Answers::none; }
    virtual ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                     const HeadSettings& settings) const = 0;
    /// Throws Exit::data for a batch that this objective cannot learn from.
    virtual void check(const Batch&) const {}
    /// Whether a batch adds anything to the loss, its gradients or its metrics.
    virtual bool learns_from(const Batch& batch) const { return total(batch) > 0; }
    /// Adds the loss of acts.hidden to `sums`. In training it also fills acts.dhidden and adds the gradient of the
    /// head.
    virtual void run(const Context& ctx, const ObjectiveStep& step) const = 0;

    /// What the loss is divided by.
    virtual double total(const StepTotals& totals) const { return totals.pair_weight; }
    virtual double total(const Batch& batch) const { return batch.pair_weight; }

    /// Objectives over answers: writes the log-probability, or the reward, of every sequence to buffers.answers. A policy
    /// writes the negative log-probability of every target to buffers.nll.
    virtual void measure(const Context& ctx, const ObjectiveStep& step) const;
    /// Whether it compares with a reference model; LearnerOptions::reference says where its values come from.
    virtual bool needs_reference() const { return false; }
    /// Whether its loss depends on the log-ratios of mismatched answers, all of which come before the first backward pass
    /// of a step (Learner::add_mismatched()).
    virtual bool needs_mismatched() const { return false; }

    /// Metrics to log with the loss, under TRL's names, without the prefix eval_.
    virtual std::vector<Metric> metrics(const LossSums& sums, Phase phase) const = 0;
    /// The main ones in a line of text: "loss 0.6421, accuracy 71.2 %, margin 0.113".
    virtual std::string figures(const LossSums& sums, Phase phase) const = 0;
    /// The loss of a policy that equals the reference, if that is known.
    virtual std::optional<double> untrained_loss() const { return {}; }
    /// What the sums of the first step say against the numbers that the data set gives; empty if they fit.
    virtual std::string misfit(const LossSums&) const { return {}; }
};

}  // namespace colonnade
