#pragma once
// The losses of single answers with a label (layers/unpaired_formulas.h), between the two passes over the head: from the
// log-probabilities of answers to the slope of each, which target_coefficients (layers/preference_loss.h) hands on to
// the targets.
//
//     s_a = l_a - l'_a                        policy less reference, sums over the learned tokens of answer a
//     z = max(0, mismatched / count)          of the whole step: the mean of s over mismatched prompts and answers
//     coefficient_a = scale d loss_a / d s_a  d loss / d l_a
//
// z is held constant, so it must be known before the first backward pass of a step: add_log_ratios adds up s over the
// mismatched answers of all micro-steps. The sum stays on the device. All in double, in a fixed order.

#include "engine/device/context.h"
#include "layers/unpaired_formulas.h"

namespace colonnade {

/// Sums over answers. The figures of rejected answers are divided by answers - desirable.
struct UnpairedSums {
    enum Name {
        loss,
        answers,
        desirable,
        chosen_reward,  ///< beta s
        rejected_reward,
        chosen_logp,
        rejected_logp,
        z,  ///< once for each answer, so that their mean is that of the steps
        count
    };
    double of[count];
};

struct UnpairedAnswers {
    Tensor sums;            ///< f64 [UnpairedSums::count], unscaled, added to
    Tensor coefficients{};  ///< f64 [answers], overwritten; or empty in evaluation
    Tensor logps;           ///< f64 [answers]
    Tensor reference;       ///< f64 [answers]
    Tensor labels;          ///< i32 [answers]: AnswerLabel
    Tensor mismatched{};    ///< f64 [1]: sum of s over the mismatched answers of the step; may be empty but for kto
    double mismatched_count = 0;
    UnpairedSettings settings;
    double scale;  ///< 1 / answers of the whole global step
};
void unpaired_loss(const Context& ctx, const UnpairedAnswers& args);

struct AddLogRatios {
    Tensor sum;        ///< f64 [1], added to
    Tensor logps;      ///< f64 [answers]
    Tensor reference;  ///< f64 [answers]
};
void add_log_ratios(const Context& ctx, const AddLogRatios& args);

/// UnpairedAnswers as kernels see them.
struct UnpairedPointers {
    double* coefficients;  ///< or null
    const double *logps, *reference;
    const int32_t* labels;
    const double* mismatched;  ///< or null
    double mismatched_count;
    UnpairedSettings settings;
    double scale;
};
UnpairedPointers pointers_of(const UnpairedAnswers& args);

COLONNADE_HOST_DEVICE inline double z_of(const UnpairedPointers& a) {
    return a.mismatched && a.mismatched_count > 0 ? fmax(0.0, *a.mismatched / a.mismatched_count) : 0;
}

/// Writes the coefficient of an answer; returns what the answer adds to the sums.
COLONNADE_HOST_DEVICE inline UnpairedSums loss_of_answer(const UnpairedPointers& a, int64_t answer, double z) {
    const auto label = static_cast<AnswerLabel>(a.labels[answer]);
    const double logp = a.logps[answer], s = logp - a.reference[answer], reward = a.settings.beta * s;
    const ValueAndSlope loss = unpaired_loss(a.settings, label, s, z);
    if (a.coefficients) a.coefficients[answer] = a.scale * loss.slope;
    if (label == AnswerLabel::desirable) return {{loss.value, 1, 1, reward, 0, logp, 0, z}};
    return {{loss.value, 1, 0, 0, reward, 0, logp, z}};
}

}  // namespace colonnade
