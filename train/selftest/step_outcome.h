#pragma once
// StepOutcome: loss and gradients of the micro-steps of one optimizer step, and how far two of them are apart. With it
// `check-packing` and `selftest` compare the same samples laid out in two ways.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "train/step/learner.h"

namespace colonnade {

struct StepOutcome {
    LossSums loss{};
    std::vector<float> gradients{};  ///< of all parameters, as Learner::gradients()

    /// The outcome of other micro-steps of the same step, on another rank.
    StepOutcome& operator+=(const StepOutcome& other);
};

struct StepRun {
    double total;  ///< Objective::total() of the whole step
    /// Reference log-probabilities of all sequences, in order; empty: those of the model itself. Unused by a policy, whose
    /// reference is that of its samples if they have one.
    std::span<const double> reference{};
    bool deterministic = false;                     ///< ContextOptions::deterministic
    std::function<void(double tokens)> progress{};  ///< called with the real tokens done so far
};
/// Runs all batches as micro-steps of one step, without an update.
StepOutcome run_step(Learner& learner, std::vector<Batch> batches, const StepRun& run);

/// A difference, and what has it: the name of a metric or of a parameter.
struct Gap {
    double value = 0;
    std::string of = "none";
};

struct OutcomeGaps {
    Gap loss;       ///< relative to the loss, or to the size of its terms if that is larger: see loss_size
    Gap metrics;    ///< the largest, relative to the largest metric
    Gap parameter;  ///< the largest of a parameter's gradient: Euclidean, relative to the norm of that gradient
    Gap gradients;  ///< of all gradients together: Euclidean, relative to their norm

    double worst() const;  ///< of loss, metrics and gradients
};
/// `loss_size`: what the terms of a loss that is about 0 are like, such as the advantages of a policy.
OutcomeGaps compare_outcomes(const Learner& learner, const StepOutcome& found, const StepOutcome& expected,
                             double loss_size = 0);

/// The mean of the absolute advantages; 0 in stages that have none.
double size_of_advantages(std::span<const Batch> batches);

}  // namespace colonnade
