#pragma once
// Explains an optimizer step of a run: which rows its loss and its gradient come from. From the newest checkpoint before
// the step, or from the weights that the run began with, the steps in between are computed again, to the same bits if the
// run had one rank and this machine computes as that one did. Then every sample of the step is computed alone, with the
// weights that the step began with, and at last the whole step.

#include "train/run/session.h"

namespace colonnade {

struct SampleShare {
    std::string place;         ///< "path:line"
    double loss = 0;           ///< of the sample alone: the mean over what the stage divides by
    double share = 0;          ///< of the step's loss: its part of the sum
    double gradient_norm = 0;  ///< of its part of the step's gradient
    int64_t tokens = 0;
    std::string text{};  ///< as the model reads it, on one line; empty without a tokenizer
};

struct ExplainedStep {
    int64_t step = 0, begun_at = 0;      ///< steps of the checkpoint; 0: of the initial weights
    double loss = 0, gradient_norm = 0;  ///< of the whole step
    double learning_rate = 0;
    std::vector<SampleShare> samples{};   ///< the largest gradient first
    std::optional<double> logged_loss{};  ///< in metrics.jsonl, if that has a line for this step alone
    std::optional<double> logged_gradient_norm{};
};

/// The step that stands out most in the log of a run: the last one that loss_spike named; else the one with the largest
/// grad_norm. Throws Exit::data for a folder without a log.
int64_t conspicuous_step(const std::string& output_dir);

/// `output_dir`: of the run. Throws Exit::config for a folder that is none, for a step that the run has not reached, and
/// for data or models that have changed.
ExplainedStep explain_step(const std::string& output_dir, int64_t step);

}  // namespace colonnade
