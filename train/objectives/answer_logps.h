#pragma once
// What objectives over the log-probabilities of answers have in common: the two passes over the head around the loss
// (train/objectives/preference_objective.h).

#include "train/objectives/objective.h"

namespace colonnade {

/// buffers.nll of every target, with logits divided by a temperature.
void measure_nll(const Context& ctx, const ObjectiveStep& step, double temperature = 1);
/// The first pass: hidden states -> nll of every target -> buffers.answers, the log-probability of every sequence.
void measure_logps(const Context& ctx, const ObjectiveStep& step);
/// The second pass: buffers.slopes, d loss / d answers -> acts.dhidden and the gradient of the head. After measure_logps()
/// of the same step.
void backward_logps(const Context& ctx, const ObjectiveStep& step);

}  // namespace colonnade
