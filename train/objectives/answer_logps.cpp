#include "train/objectives/answer_logps.h"

#include "layers/head_loss.h"
#include "layers/preference_loss.h"

namespace colonnade {

void measure_nll(const Context& ctx, const ObjectiveStep& s, double temperature) {
    const ObjectiveBuffers& b = s.buffers;
    head_loss(ctx, {.nll = b.nll,
                    .logits = b.logits,
                    .hidden = s.acts.hidden,
                    .weight = s.model.weights().head,
                    .targets = s.batch.targets,
                    .temperature = temperature});
}

void measure_logps(const Context& ctx, const ObjectiveStep& s) {
    measure_nll(ctx, s);
    sequence_log_probabilities(ctx, {.logps = s.buffers.answers, .nll = s.buffers.nll, .terms = s.batch.terms});
}

void backward_logps(const Context& ctx, const ObjectiveStep& s) {
    const ObjectiveBuffers& b = s.buffers;
    target_coefficients(ctx, {.scales = s.batch.scales, .coefficients = b.slopes, .terms = s.batch.terms});
    head_loss(ctx, {.nll = b.nll,
                    .dhidden = s.acts.dhidden,
                    .dweight = s.gradients->views.head,
                    .dweight_mode = s.gradients->matrices,
                    .logits = b.logits,
                    .hidden = s.acts.hidden,
                    .weight = s.model.weights().head,
                    .targets = s.batch.targets,
                    .scales = s.batch.scales});
}

}  // namespace colonnade
