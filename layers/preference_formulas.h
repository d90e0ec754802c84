#pragma once
// The losses of preference training: value and derivatives, in double, the same code on both devices.
//
// A pair of answers has log-probabilities l_c (chosen) and l_r (rejected) under the policy, sums over the n_c and n_r
// tokens with a label, and l_c', l_r' under the reference model. With s = l - l', a bar for "divided by n", D = s_c -
// s_r, sigma the logistic function and e the label smoothing:
//
//     sigmoid       -(1 - e) log sigma(beta D) - e log sigma(-beta D)                        DPO, arXiv 2305.18290
//     robust        [-(1 - e) log sigma(beta D) + e log sigma(-beta D)] / (1 - 2 e)          2403.00409
//     hinge         max(0, 1 - beta D)                                                       SLiC, 2305.10425
//     ipo           (bar s_c - bar s_r - 1 / (2 beta))^2                                     2310.12036
//     sigmoid_norm  -log sigma(beta (bar s_c - bar s_r))                                     2411.15124
//     exo_pair      sigma(u) [log sigma(u) - log(1 - e)] + sigma(-u) [log sigma(-u) - log e], u = beta D    2402.00856
//     nca_pair      -log sigma(beta s_c) - 1/2 log sigma(-beta s_c) - 1/2 log sigma(-beta s_r)              2402.05369
//     sppo_hard     (s_c - 1 / (2 beta))^2 + (s_r + 1 / (2 beta))^2                          2405.00675
//     apo_zero      1 - sigma(beta s_c) + sigma(beta s_r)                                    2408.06266
//     apo_down      sigma(beta s_c) + 1 - sigma(beta D)                                      2408.06266
//     simpo         -log sigma(beta (bar l_c - bar l_r) - gamma)                             2405.14734
//     orpo          -bar l_c - beta log sigma(z), z = logit(exp(bar l_c)) - logit(exp(bar l_r))             2403.07691
//     sft           -bar l_c
//
// simpo, orpo and sft need no reference model.

#include <cmath>
#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade {

enum class PreferenceLoss : int32_t {
    sigmoid,
    robust,
    hinge,
    ipo,
    sigmoid_norm,
    exo_pair,
    nca_pair,
    sppo_hard,
    apo_zero,
    apo_down,
    simpo,
    orpo,
    sft,
};
constexpr int preference_losses = 13;

constexpr bool needs_reference(PreferenceLoss loss) {
    return loss < PreferenceLoss::simpo;
}

/// A weighted sum of losses.
struct PreferenceMix {
    int count = 0;
    PreferenceLoss losses[preference_losses] = {};
    double weights[preference_losses] = {};
    double beta = 0.1, label_smoothing = 0, simpo_gamma = 0.5;
};

/// One pair of answers.
struct PairScores {
    double chosen, rejected;          ///< log-probabilities under the policy, sums over tokens
    double ref_chosen, ref_rejected;  ///< under the reference; 0 without one
    double chosen_length, rejected_length;
};

/// A loss and its derivatives with respect to PairScores::chosen and rejected.
struct PairLoss {
    double value, d_chosen, d_rejected;
};

/// A function of one variable, and its derivative.
struct ValueAndSlope {
    double value, slope;
};

COLONNADE_HOST_DEVICE inline double sigmoid(double x) {
    const double e = exp(-fabs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}
COLONNADE_HOST_DEVICE inline double log_sigmoid(double x) {
    return fmin(x, 0.0) - log1p(exp(-fabs(x)));
}

/// Log-odds of an answer, with its mean log-probability l taken as that of one token. They would become infinite for l
/// = 0: between `edge` and 0 they keep the value at `edge`.
COLONNADE_HOST_DEVICE inline ValueAndSlope log_odds(double l) {
    constexpr double edge = -1e-6;
    const double at = fmin(l, edge);
    return {at - log(-expm1(at)), l < edge ? -1 / expm1(at) : 0};
}

COLONNADE_HOST_DEVICE inline PairLoss pair_loss(PreferenceLoss loss, const PreferenceMix& m, const PairScores& p) {
    const double beta = m.beta, e = m.label_smoothing, n_c = p.chosen_length, n_r = p.rejected_length;
    const double s_c = p.chosen - p.ref_chosen, s_r = p.rejected - p.ref_rejected;
    const double mean_c = p.chosen / n_c, mean_r = p.rejected / n_r;
    const double a = beta * s_c, b = beta * s_r, u = a - b, q = sigmoid(u);
    const auto of_margin = [&](double value, double slope) { return PairLoss{value, beta * slope, -beta * slope}; };
    const auto bump = [](double x) { return sigmoid(x) * sigmoid(-x); };  // the slope of sigmoid
    switch (loss) {
        case PreferenceLoss::sigmoid:
            return of_margin(-(1 - e) * log_sigmoid(u) - e * log_sigmoid(-u), e * q - (1 - e) * sigmoid(-u));
        case PreferenceLoss::robust:
            return of_margin((e * log_sigmoid(-u) - (1 - e) * log_sigmoid(u)) / (1 - 2 * e),
                             -((1 - e) * sigmoid(-u) + e * q) / (1 - 2 * e));
        case PreferenceLoss::hinge:
            return of_margin(fmax(0.0, 1 - u), u < 1 ? -1 : 0);
        case PreferenceLoss::ipo: {
            const double gap = s_c / n_c - s_r / n_r - 1 / (2 * beta);
            return {gap * gap, 2 * gap / n_c, -2 * gap / n_r};
        }
        case PreferenceLoss::sigmoid_norm: {
            const double x = a / n_c - b / n_r, slope = -beta * sigmoid(-x);
            return {-log_sigmoid(x), slope / n_c, -slope / n_r};
        }
        case PreferenceLoss::exo_pair: {
            const double value = q * (log_sigmoid(u) - log1p(-e)) + sigmoid(-u) * (log_sigmoid(-u) - log(e));
            return of_margin(value, bump(u) * (u - log1p(-e) + log(e)));
        }
        case PreferenceLoss::nca_pair:
            return {-log_sigmoid(a) - 0.5 * log_sigmoid(-a) - 0.5 * log_sigmoid(-b),
                    beta * (0.5 * sigmoid(a) - sigmoid(-a)), 0.5 * beta * sigmoid(b)};
        case PreferenceLoss::sppo_hard: {
            const double c = s_c - 1 / (2 * beta), r = s_r + 1 / (2 * beta);
            return {c * c + r * r, 2 * c, 2 * r};
        }
        case PreferenceLoss::apo_zero:
            return {sigmoid(-a) + sigmoid(b), -beta * bump(a), beta * bump(b)};
        case PreferenceLoss::apo_down:
            return {sigmoid(a) + sigmoid(-u), beta * (bump(a) - bump(u)), beta * bump(u)};
        case PreferenceLoss::simpo: {
            const double x = beta * (mean_c - mean_r) - m.simpo_gamma, slope = -beta * sigmoid(-x);
            return {-log_sigmoid(x), slope / n_c, -slope / n_r};
        }
        case PreferenceLoss::orpo: {
            const ValueAndSlope chosen = log_odds(mean_c), rejected = log_odds(mean_r);
            const double z = chosen.value - rejected.value, slope = -beta * sigmoid(-z);
            return {-mean_c - beta * log_sigmoid(z), (slope * chosen.slope - 1) / n_c, -slope * rejected.slope / n_r};
        }
        case PreferenceLoss::sft:
            return {-mean_c, -1 / n_c, 0};
    }
    return {};
}

COLONNADE_HOST_DEVICE inline PairLoss pair_loss(const PreferenceMix& mix, const PairScores& pair) {
    PairLoss sum{};
    for (int i = 0; i < mix.count; ++i) {
        const PairLoss one = pair_loss(mix.losses[i], mix, pair);
        sum.value += mix.weights[i] * one.value;
        sum.d_chosen += mix.weights[i] * one.d_chosen;
        sum.d_rejected += mix.weights[i] * one.d_rejected;
    }
    return sum;
}

}  // namespace colonnade
