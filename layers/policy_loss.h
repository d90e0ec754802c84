#pragma once
// The losses of policy gradients over the sequences of a batch, from the nll of its targets, with the sums of their
// metrics. At the levels `sequence` and `sequence_sum` (gspo, luspo, rloo) the slope of a term needs the nll of its
// whole sequence, so the head runs twice, with these ops between:
//
//     head_loss without gradients   nll
//     policy_loss                   slopes: d loss / d x_t of each term
//     target_scales                 scale_i = -sum_{t of i} slope_t = d loss / d nll_i
//     head_loss                     gradients
//
// At RatioLevel::token head_loss makes the gradients by itself, and policy_loss only adds to the metrics.
//
// A sequence without terms adds 1 to S and nothing to the loss; TRL's rloo adds the constant -A for it.
//
// All in double, in a fixed order: the same bits in every run. Formulas: layers/policy_formulas.h. Metrics: TRL 1.16.

#include "layers/policy_terms.h"

namespace colonnade {

/// Sums over the terms of a batch, each times its weight, and at the end over its sequences. A figure is such a sum divided by `terms` of the step, the
/// loss by `divisor`. At the levels of sequences the four figures of ratios are sums over sequences, divided by
/// `sequences`.
struct PolicySums {
    enum Name {
        loss,       ///< not divided yet
        divisor,    ///< what the loss is divided by: terms or sequences (is_mean_of_terms())
        terms,      ///< N
        sequences,  ///< S
        kl,         ///< as it is in the loss, without beta
        entropy,
        clip_low,   ///< ratios past the lower bound (clip_side()): clip_ratio/low_mean of TRL
        clip_high,  ///< past the upper one; both together: clip_ratio/region_mean
        ratio,
        outside,  ///< ratios outside [0.8, 1.25]: many of them say that the given log-probabilities do not fit
        importance,
        tokens,   ///< terms, whatever their weights
        rewards,  ///< sequences whose reward is known
        reward,
        reward_squared,
        count
    };
};
/// Maxima. Minima are kept with the other sign.
struct PolicyExtremes {
    enum Name {
        ratio_max,
        minus_ratio_min,
        clip_high_max,       ///< of a sequence's share of terms
        minus_clip_low_min,  ///< of a sequence's share of terms
        importance_max,
        minus_importance_min,
        tokens_max,  ///< of a sequence
        minus_tokens_min,
        count
    };
};
/// What one sequence adds.
struct PolicyNumbers {
    double sums[PolicySums::count], extremes[PolicyExtremes::count];
    static constexpr int64_t count = int64_t{PolicySums::count} + PolicyExtremes::count;
};

struct PolicyLossStep {
    Tensor sums;       ///< f64 [PolicySums::count], added to
    Tensor extremes;   ///< f64 [PolicyExtremes::count], the larger number is kept; -inf for no terms
    Tensor slopes{};   ///< f64 [terms], d loss / d x of each term, overwritten; or empty
    Tensor scratch;    ///< f64 [sequences, PolicyNumbers::count]
    Tensor nll;        ///< f64 [targets]
    Tensor entropy{};  ///< f64 [targets]; or empty, then its sum is 0
    PolicyTerms terms;
};
void policy_loss(const Context& ctx, const PolicyLossStep& args);

struct TargetScales {
    Tensor scales;  ///< f64 [targets]
    Tensor slopes;  ///< f64 [terms]
    TermsOfTargets of_targets;
};
void target_scales(const Context& ctx, const TargetScales& args);

/// The factors for what the sampler reported (importance_factor()). A term of which either log-probability is NaN counts
/// as 0 in the log-ratio.
struct ImportanceFactors {
    Tensor factors;  ///< f32 [terms]
    Tensor old;      ///< f32 [terms]
    Tensor sampled;  ///< f32 [terms]
    Tensor begins;   ///< i32 [sequences + 1]
    ImportanceSettings settings;
};
void importance_factors(const Context& ctx, const ImportanceFactors& args);

/// The tensors of PolicyLossStep as kernels see them.
struct PolicyPointers {
    double* slopes;  ///< or null
    PolicyNumbers* numbers;
    const double *nll, *entropy;  ///< entropy may be null
    TermPointers terms;
};
PolicyPointers pointers_of(const PolicyLossStep& args);

COLONNADE_HOST_DEVICE inline PolicyNumbers no_numbers() {
    PolicyNumbers n{};
    for (double& extreme : n.extremes) extreme = -INFINITY;
    return n;
}

/// `to` and `from` of different terms, or different sequences.
COLONNADE_HOST_DEVICE inline void add_numbers(PolicyNumbers& to, const PolicyNumbers& from) {
    for (int k = 0; k < PolicySums::count; ++k) to.sums[k] += from.sums[k];
    for (int k = 0; k < PolicyExtremes::count; ++k) to.extremes[k] = fmax(to.extremes[k], from.extremes[k]);
}

/// The first pass over a sequence: sums over some of its terms. The sum of the parts goes to loss_of_terms().
COLONNADE_HOST_DEVICE inline PolicySequence ratio_of_terms(const PolicyPointers& a, int64_t sequence, Stride part) {
    const TermPointers& p = a.terms;
    PolicySequence q{.advantage = 0, .terms = p.lengths[sequence], .log_ratio = 0, .kl = 0, .importance = 0};
    const int32_t begin = p.begins[sequence], end = p.begins[sequence + 1];
    if (begin < end) q.advantage = static_cast<double>(p.advantages[begin]);
    for (int32_t t = begin + part.first; t < end; t += part.step) {
        const PolicyTerm term = term_at(p, t, a.nll[p.targets[t]]);
        const auto weight = static_cast<double>(p.weights[t]);
        q.log_ratio += weight * (term.logp - term.old);
        if (p.settings.beta != 0) q.kl += weight * kl_estimate(term.logp, term.reference).value;
        q.importance += weight * term.importance / terms_or_one(q.terms);
    }
    return q;
}

COLONNADE_HOST_DEVICE inline PolicyTermLoss loss_of_term(const PolicySettings& s, const PolicyTerm& term,
                                                         const PolicySequenceLoss& whole) {
    if (s.ratio == RatioLevel::token) return policy_term(s, term);
    const double kl_slope = s.beta == 0 ? 0 : whole.kl_slope * kl_estimate(term.logp, term.reference).slope;
    return {whole.value, whole.slope + kl_slope, whole.ratio, whole.kl};
}

COLONNADE_HOST_DEVICE inline PolicyNumbers numbers_of_term(const PolicySettings& s, const PolicyTerm& term,
                                                           const PolicyTermLoss& found, double weight) {
    const ClipSide side = clip_side(s, found.ratio, term.advantage);
    PolicyNumbers n = no_numbers();
    n.sums[PolicySums::loss] = weight * found.value;
    n.sums[PolicySums::kl] = weight * found.kl;
    n.sums[PolicySums::clip_low] = side == ClipSide::low ? weight : 0;
    n.sums[PolicySums::clip_high] = side == ClipSide::high ? weight : 0;
    n.sums[PolicySums::ratio] = weight * found.ratio;
    n.sums[PolicySums::outside] = found.ratio >= 0.8 && found.ratio <= 1.25 ? 0 : weight;
    n.sums[PolicySums::importance] = weight * term.importance;
    n.extremes[PolicyExtremes::ratio_max] = found.ratio;
    n.extremes[PolicyExtremes::minus_ratio_min] = -found.ratio;
    n.extremes[PolicyExtremes::importance_max] = term.importance;
    n.extremes[PolicyExtremes::minus_importance_min] = -term.importance;
    return n;
}

/// The second pass: writes the slopes of some terms of a sequence, and returns what they add. A term of weight 0 adds
/// nothing.
COLONNADE_HOST_DEVICE inline PolicyNumbers loss_of_terms(const PolicyPointers& a, int64_t sequence,
                                                         const PolicySequenceLoss& whole, Stride part) {
    const TermPointers& p = a.terms;
    const double scale = term_scale(p.settings.loss, p.totals, p.lengths[sequence]);
    PolicyNumbers sum = no_numbers();
    for (int32_t t = p.begins[sequence] + part.first; t < p.begins[sequence + 1]; t += part.step) {
        const auto weight = static_cast<double>(p.weights[t]);
        if (a.slopes) a.slopes[t] = 0;
        if (weight == 0) continue;
        const int32_t target = p.targets[t];
        const PolicyTerm term = term_at(p, t, a.nll[target]);
        const PolicyTermLoss found = loss_of_term(p.settings, term, whole);
        if (a.slopes) a.slopes[t] = weight * scale * found.slope;
        PolicyNumbers own = numbers_of_term(p.settings, term, found, weight);
        if (a.entropy) own.sums[PolicySums::entropy] = weight * a.entropy[target];
        add_numbers(sum, own);
    }
    return sum;
}

/// From the sum over all terms of a sequence to what the sequence adds.
COLONNADE_HOST_DEVICE inline PolicyNumbers numbers_of_sequence(const TermPointers& p, int64_t sequence,
                                                               PolicyNumbers n) {
    const double terms = p.lengths[sequence], divisor = terms_or_one(terms);
    n.sums[PolicySums::loss] *= term_part(p.settings.loss, terms, p.totals.max_completion_length);
    n.sums[PolicySums::divisor] = is_mean_of_terms(p.settings.loss) ? terms : 1;
    n.sums[PolicySums::terms] = terms;
    n.sums[PolicySums::sequences] = 1;
    const double tokens = p.begins[sequence + 1] - p.begins[sequence];
    n.sums[PolicySums::tokens] = tokens;
    n.extremes[PolicyExtremes::tokens_max] = tokens;
    n.extremes[PolicyExtremes::minus_tokens_min] = -tokens;
    const double reward = p.rewards ? static_cast<double>(p.rewards[sequence]) : NAN;
    if (reward == reward) {
        n.sums[PolicySums::rewards] = 1;
        n.sums[PolicySums::reward] = reward;
        n.sums[PolicySums::reward_squared] = reward * reward;
    }
    if (terms > 0) {
        n.extremes[PolicyExtremes::clip_high_max] = n.sums[PolicySums::clip_high] / divisor;
        n.extremes[PolicyExtremes::minus_clip_low_min] = -n.sums[PolicySums::clip_low] / divisor;
    }
    if (p.settings.ratio == RatioLevel::token) return n;
    n.sums[PolicySums::clip_low] /= divisor;
    n.sums[PolicySums::clip_high] /= divisor;
    n.sums[PolicySums::ratio] /= divisor;
    n.sums[PolicySums::outside] /= divisor;
    return n;
}

/// d loss / d nll of a target, from the slopes of its terms.
COLONNADE_HOST_DEVICE inline double scale_from_slopes(const int32_t* begins, const int32_t* terms, const double* slopes,
                                                      int64_t target) {
    double sum = 0;
    for (int32_t k = begins[target]; k < begins[target + 1]; ++k) sum -= slopes[terms[k]];
    return sum;
}

/// old - sampled, 0 if either is not known.
COLONNADE_HOST_DEVICE inline double sampler_log_ratio(float old, float sampled) {
    const double difference = static_cast<double>(old) - static_cast<double>(sampled);
    return difference == difference ? difference : 0;
}

COLONNADE_HOST_DEVICE inline bool is_of_sequence(ImportanceMode mode) {
    return mode == ImportanceMode::sequence_mask || mode == ImportanceMode::sequence_truncate;
}

}  // namespace colonnade
