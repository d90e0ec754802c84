#pragma once
// The losses of learning from given numbers: value and slope, in double, the same code on both devices.
//
// A term is a learned token of one sequence. x is its log-probability under the policy, o under the policy that drew
// it, f under the reference; A is the advantage. Slopes are d / dx.
//
//                                                                          slope
//     nll       -x                                                         -1
//     dft       -p x, p = exp x held constant                              -p              arXiv 2508.05629
//
// The losses of policy gradients have a ratio r = exp u. u is x - o of the term (RatioLevel::token), the mean of x - o
// over the terms of the sequence (sequence), or their sum (sequence_sum). With e, e' = epsilon_low, epsilon_high, d =
// delta, tau a temperature and g = sigma(tau (r - 1)):
//
//     clipped   -min(min(r, d) A, clip(r, 1 - e, 1 + e') A)     d / du: -r A, 0 where a bound holds
//     cispo     -min(r, e') A x, the ratio held constant        d / dx: -min(r, e') A      2506.13585
//     sapo      -(4 / tau) g A                                  d / du: -4 g (1 - g) r A   2511.20347
//
//     loss      surrogate   ratio                 weight of a term (term_scale)
//     dapo      clipped     token                 1 / N                                    2503.14476
//     grpo      clipped     token                 1 / (n_s S)                              2402.03300
//               clipped     sequence (GSPO)       1 / (n_s S)                              2507.18071
//     dr_grpo   clipped     token                 1 / (S max_completion_length)            2503.20783
//     luspo     clipped     sequence              1 / S                                    2602.05261
//     cispo     cispo       token                 1 / N
//     sapo      sapo        token                 1 / (n_s S)
//     rloo      clipped     sequence_sum          1 / (n_s S)                              2402.14740
//
// N terms and S sequences count the whole step, n_s the terms of the sequence. A term with a weight w counts w times: in
// N, in n_s, and in every sum and mean over terms. d below infinity is the two-sided clip
// of 2505.07291. beta adds the estimate K = e^(f - x) - (f - x) - 1 of the KL divergence to each term, times r if it is
// corrected for the bias of terms that the old policy drew. rloo has beta in the reward instead, not here.
//
// The definitions, the names and the defaults are those of TRL 1.16 (grpo_trainer.py, rloo_trainer.py,
// sft_trainer.py).

#include "layers/preference_formulas.h"

namespace colonnade {

enum class TokenLoss : int32_t { nll, dft };

COLONNADE_HOST_DEVICE inline ValueAndSlope token_loss(TokenLoss loss, double logp) {
    const double held = loss == TokenLoss::dft ? exp(logp) : 1;
    return {-held * logp, -held};
}

enum class PolicyLoss : int32_t { dapo, grpo, dr_grpo, luspo, cispo, sapo, rloo };
constexpr int policy_losses = 7;

/// What a ratio is of. cispo has only `token`, rloo only `sequence_sum`.
enum class RatioLevel : int32_t { token, sequence, sequence_sum };

enum class KlEstimate : int32_t {
    plain,          ///< K
    bias_corrected  ///< K r
};

struct PolicySettings {
    PolicyLoss loss = PolicyLoss::dapo;
    RatioLevel ratio = RatioLevel::token;
    double epsilon_low = 0.2, epsilon_high = 0.2;  ///< TRL recommends epsilon_high = 5 for cispo
    double delta = INFINITY;
    double sapo_temperature_pos = 1, sapo_temperature_neg = 1.05;  ///< tau for A > 0, and for the rest
    double beta = 0;
    KlEstimate kl = KlEstimate::bias_corrected;
};

/// A term at RatioLevel::token.
struct PolicyTerm {
    double logp, old, advantage;
    double reference = 0;   ///< read only if beta is not 0
    double importance = 1;  ///< factor of the surrogate, not of the KL: importance_factor()
};

struct PolicyTermLoss {
    double value, slope;
    double ratio, kl;  ///< of the metrics; kl as it is in the loss, without beta, and 0 if beta is
};

/// A sequence at the other levels, from a first pass over its terms.
struct PolicySequence {
    double advantage;
    double terms;           ///< n_s
    double log_ratio;       ///< sum of x - o
    double kl = 0;          ///< sum of K, read only if beta is not 0
    double importance = 1;  ///< mean of the factors of its terms
};

/// The slope of a term is slope + kl_slope * kl_estimate(x, f).slope.
struct PolicySequenceLoss {
    double value;  ///< mean over the terms of the sequence
    double slope, kl_slope;
    double ratio, kl;  ///< of the metrics, means over the terms
};

/// The estimate K of the divergence from the reference, and dK / dx.
COLONNADE_HOST_DEVICE inline ValueAndSlope kl_estimate(double logp, double reference) {
    const double above = expm1(reference - logp);
    return {above - (reference - logp), -above};
}

/// The loss without the KL: value, and slope by u (cispo: by x). `logp` is read by cispo only. A = 0 gives 0 even if
/// the ratio is infinite.
COLONNADE_HOST_DEVICE inline ValueAndSlope policy_surrogate(const PolicySettings& s, double ratio, double advantage,
                                                            double logp) {
    if (advantage == 0) return {0, 0};
    if (s.loss == PolicyLoss::cispo) {
        const double held = fmin(ratio, s.epsilon_high) * advantage;
        return {-held * logp, -held};
    }
    if (s.loss == PolicyLoss::sapo) {
        const double tau = advantage > 0 ? s.sapo_temperature_pos : s.sapo_temperature_neg, z = tau * (ratio - 1);
        const double bump = sigmoid(z) * sigmoid(-z);
        return {-4 / tau * sigmoid(z) * advantage, bump > 0 ? -4 * bump * ratio * advantage : 0};
    }
    const double capped = fmin(ratio, s.delta);
    const double clipped = fmin(fmax(ratio, 1 - s.epsilon_low), 1 + s.epsilon_high);
    const double used = advantage > 0 ? fmin(capped, clipped) : fmax(capped, clipped);
    return {-used * advantage, used == ratio ? -ratio * advantage : 0};
}

COLONNADE_HOST_DEVICE inline PolicyTermLoss policy_term(const PolicySettings& s, const PolicyTerm& t) {
    const double ratio = exp(t.logp - t.old);
    const ValueAndSlope loss = policy_surrogate(s, ratio, t.advantage, t.logp);
    PolicyTermLoss found{t.importance * loss.value, t.importance * loss.slope, ratio, 0};
    if (s.beta == 0) return found;
    ValueAndSlope kl = kl_estimate(t.logp, t.reference);
    if (s.kl == KlEstimate::bias_corrected) kl = {kl.value * ratio, (t.logp - t.reference) * ratio};
    found.value += s.beta * kl.value;
    found.slope += s.beta * kl.slope;
    found.kl = kl.value;
    return found;
}

/// A divisor that does not make a NaN of the sums of nothing.
COLONNADE_HOST_DEVICE inline double terms_or_one(double terms) {
    return terms > 0 ? terms : 1;
}

COLONNADE_HOST_DEVICE inline PolicySequenceLoss policy_sequence(const PolicySettings& s, const PolicySequence& q) {
    const double terms = terms_or_one(q.terms);
    const bool sum = s.ratio == RatioLevel::sequence_sum;
    const double ratio = exp(sum ? q.log_ratio : q.log_ratio / terms), by_sum = sum ? terms : 1;
    const ValueAndSlope loss = policy_surrogate(s, ratio, q.advantage, 0);
    // Each of the n_s terms has the whole loss as its value, and u moves by 1 / n_s of x, or by all of it.
    PolicySequenceLoss found{q.importance * loss.value, by_sum * q.importance * loss.slope, 0, ratio, 0};
    if (s.beta == 0) return found;
    found.kl = q.kl / terms;
    found.kl_slope = s.beta;
    if (s.kl == KlEstimate::bias_corrected) {
        found.kl *= ratio;
        found.kl_slope *= ratio;
        found.slope += by_sum * s.beta * found.kl;
    }
    found.value += s.beta * found.kl;
    return found;
}

/// Totals of a step.
struct PolicyTotals {
    double terms, sequences;
    double max_completion_length = 1;  ///< read by dr_grpo only
};

/// What the loss of a step is divided by: its terms or its sequences.
COLONNADE_HOST_DEVICE inline bool is_mean_of_terms(PolicyLoss loss) {
    return loss == PolicyLoss::dapo || loss == PolicyLoss::cispo;
}

/// The factor of a term in the sum that is divided by N or S.
COLONNADE_HOST_DEVICE inline double term_part(PolicyLoss loss, double terms_of_sequence, double max_completion_length) {
    switch (loss) {
        case PolicyLoss::dapo:
        case PolicyLoss::cispo:
        case PolicyLoss::luspo:
            return 1;
        case PolicyLoss::dr_grpo:
            return 1 / max_completion_length;
        case PolicyLoss::grpo:
        case PolicyLoss::sapo:
        case PolicyLoss::rloo:
            return 1 / terms_or_one(terms_of_sequence);
    }
    return 0;
}

/// The factor of the value and the slope of each term of a sequence. A sequence without terms counts in S alone.
COLONNADE_HOST_DEVICE inline double term_scale(PolicyLoss loss, const PolicyTotals& totals, double terms_of_sequence) {
    const double divisor = is_mean_of_terms(loss) ? totals.terms : totals.sequences;
    return term_part(loss, terms_of_sequence, totals.max_completion_length) / terms_or_one(divisor);
}

/// The bound that a ratio went past on the side that its advantage pushes to.
enum class ClipSide : int32_t { none, low, high };

COLONNADE_HOST_DEVICE inline ClipSide clip_side(const PolicySettings& s, double ratio, double advantage) {
    if (s.loss == PolicyLoss::sapo) return ClipSide::none;
    if (s.loss == PolicyLoss::cispo) return ratio > s.epsilon_high && advantage > 0 ? ClipSide::high : ClipSide::none;
    if (ratio < 1 - s.epsilon_low && advantage < 0) return ClipSide::low;
    return ratio > 1 + s.epsilon_high && advantage > 0 ? ClipSide::high : ClipSide::none;
}

/// What becomes of the ratio between the old policy as it is computed and as the sampler reported it.
enum class ImportanceMode : int32_t { sequence_mask, sequence_truncate, token_mask, token_truncate };

struct ImportanceSettings {
    ImportanceMode mode = ImportanceMode::sequence_mask;
    double clip_min = 0, clip_max = 3;
};

/// The factor of a term's surrogate. `log_ratio`: old - sampled of the term, in the sequence modes summed over the
/// sequence; a term whose sampled log-probability is not known counts as 0. Past a bound a factor becomes 0 (mask) or
/// the bound (truncate).
COLONNADE_HOST_DEVICE inline double importance_factor(const ImportanceSettings& s, double log_ratio) {
    const double ratio = exp(log_ratio), kept = fmin(fmax(ratio, s.clip_min), s.clip_max);
    const bool mask = s.mode == ImportanceMode::sequence_mask || s.mode == ImportanceMode::token_mask;
    return mask && kept != ratio ? 0 : kept;
}

}  // namespace colonnade
