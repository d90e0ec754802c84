#pragma once
// The losses of single answers with a label: value and slope, in double, the same code on both devices.
//
// s is the log-probability of an answer under the policy minus that under the reference, sums over its learned tokens.
// With sigma the logistic function and w = desirable_weight or undesirable_weight:
//
//                          desirable                   undesirable
//     kto                  w (1 - sigma(beta (s - z)))  w (1 - sigma(beta (z - s)))         arXiv 2402.01306
//     apo_zero_unpaired    w (1 - sigma(beta s))        w sigma(beta s)                     2408.06266
//
// z = max(0, mean of s over mismatched prompts and answers) is held constant. The mean of a step is over its S answers;
// the weights are not in the divisor. Definitions and defaults: TRL 1.16, kto_trainer.py.

#include "layers/preference_formulas.h"

namespace colonnade {

enum class UnpairedLoss : int32_t { kto, apo_zero_unpaired };
enum class AnswerLabel : int32_t { undesirable, desirable };

struct UnpairedSettings {
    UnpairedLoss loss = UnpairedLoss::kto;
    double beta = 0.1, desirable_weight = 1, undesirable_weight = 1;
};

/// The loss of an answer with log-ratio s, and d / ds. apo_zero_unpaired does not read z.
COLONNADE_HOST_DEVICE inline ValueAndSlope unpaired_loss(const UnpairedSettings& settings, AnswerLabel label, double s,
                                                         double z) {
    const double u = settings.beta * (settings.loss == UnpairedLoss::kto ? s - z : s);
    const double slope = settings.beta * sigmoid(u) * sigmoid(-u);
    if (label == AnswerLabel::desirable)
        return {settings.desirable_weight * sigmoid(-u), -settings.desirable_weight * slope};
    return {settings.undesirable_weight * sigmoid(u), settings.undesirable_weight * slope};
}

}  // namespace colonnade
