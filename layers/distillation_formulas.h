#pragma once
// The divergence of a student from the k most probable tokens of a teacher: value and slopes, in double, the same code
// on both devices.
//
// p and q are the probabilities of teacher and student, at the k tokens and in a tail, which is one bucket for all
// other tokens. m = beta p + (1 - beta) q. Each bucket adds
//
//                            value                                                   slope by log q
//     beta 0    forward KL   p (log p - log q)                                       -p
//     beta 1    reverse KL   q (log q - log p)                                       q (log q - log p + 1)
//     between   JSD          beta p (log p - log m) + (1 - beta) q (log q - log m)   (1 - beta) q (log q - log m)
//
// The tail depends on the log q_i too. With G the sum of the slopes by log q_i, d loss / d logit_v is slope_i - q_v G
// if v is the i-th of the k tokens, and -q_v G for all other tokens. For beta 0 that is q_v - p_v and q_v (1 - p_T /
// q_T).
//
// Definition: arXiv 2306.13649, with the tail of TRL 1.16 (server_distillation_trainer.py).

#include "layers/preference_formulas.h"

namespace colonnade {

/// The part of one bucket, and its slope by log_q. A bucket with p = 0 adds 0 to a forward KL.
COLONNADE_HOST_DEVICE inline ValueAndSlope divergence_of_bucket(double beta, double log_p, double log_q) {
    const double p = exp(log_p), q = exp(log_q);
    if (beta == 0) return {p > 0 ? p * (log_p - log_q) : 0, -p};
    if (beta == 1) return {q * (log_q - log_p), q * (log_q - log_p + 1)};
    const double top = fmax(log_p, log_q);
    const double log_m = top + log(beta * exp(log_p - top) + (1 - beta) * exp(log_q - top));
    const double slope = (1 - beta) * q * (log_q - log_m);
    return {(p > 0 ? beta * p * (log_p - log_m) : 0) + slope, slope};
}

/// log(1 - exp(log_sum)), and its slope by log_sum. The k tokens leave at least 1e-7 to the tail: rounded
/// log-probabilities may add up to more than 1. The slope is 0 there.
COLONNADE_HOST_DEVICE inline ValueAndSlope log_tail(double log_sum) {
    constexpr double edge = -1e-7;
    const double at = fmin(log_sum, edge), other = expm1(at);
    return {log(-other), log_sum <= edge ? exp(at) / other : 0};
}

/// log of the sum of exp(values[i]); count > 0.
COLONNADE_HOST_DEVICE inline double log_sum_exp(const double* values, int64_t count) {
    double top = values[0], sum = 0;
    for (int64_t i = 1; i < count; ++i) top = fmax(top, values[i]);
    for (int64_t i = 0; i < count; ++i) sum += exp(values[i] - top);
    return top + log(sum);
}

/// The log-probabilities of the k > 0 tokens that the teacher gives for one position, under teacher and student.
struct TopTokens {
    const double *teacher, *student;
    int64_t k;
};

struct DistillationLoss {
    double value, slope_sum;  ///< slope_sum: G
};

/// Writes the k slopes by log q_i, tail included.
COLONNADE_HOST_DEVICE inline DistillationLoss distillation_loss(double beta, const TopTokens& top, double* slopes) {
    const double log_sum = log_sum_exp(top.student, top.k);
    const ValueAndSlope tail = log_tail(log_sum);
    const ValueAndSlope rest = divergence_of_bucket(beta, log_tail(log_sum_exp(top.teacher, top.k)).value, tail.value);
    DistillationLoss loss{rest.value, 0};
    for (int64_t i = 0; i < top.k; ++i) {
        const ValueAndSlope own = divergence_of_bucket(beta, top.teacher[i], top.student[i]);
        slopes[i] = own.slope + rest.slope * tail.slope * exp(top.student[i] - log_sum);
        loss.value += own.value;
        loss.slope_sum += slopes[i];
    }
    return loss;
}

}  // namespace colonnade
