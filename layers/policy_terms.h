#pragma once
// The terms of a batch (layers/term_table.h), and the numbers that were given with them.
//
//     d loss / d nll_i = -sum_{t of i} weight_t term_scale(s(t)) slope_t        losses with a ratio of tokens
//
// term_scale and the slopes are those of layers/policy_formulas.h. At RatioLevel::token a slope depends on the nll of its
// own target only, so the head computes it between loss and gradient, in one pass (layers/head_loss.h). At the other
// levels it depends on the whole sequence, which takes two passes (layers/policy_loss.h).

#include "layers/policy_formulas.h"
#include "layers/term_table.h"

namespace colonnade {

struct PolicyTerms {
    TermTable table;    ///< a weight of 0 gives an exactly zero gradient
    Tensor lengths;     ///< f64 [sequences]: n_s, the sum of the weights of a sequence's terms
    Tensor advantages;  ///< f32 [terms], the same in a whole sequence but at RatioLevel::token
    /// f32 [terms]: log-probabilities under the policy that drew the terms. NaN, or an empty tensor, is a ratio of 1.
    Tensor old{};
    Tensor reference{};   ///< f32 [terms]; may be empty if beta is 0
    Tensor importance{};  ///< f32 [terms]: factors of the surrogate (importance_factors()); empty is 1
    Tensor rewards{};     ///< f32 [sequences], of metrics only; NaN, or an empty tensor, is not known
    PolicySettings settings{};
    PolicyTotals totals{};  ///< of the whole global step; only slopes need N and S
};

/// Checks shapes and, on the CPU, that all indices are in range. On a GPU the host checks them before it uploads them.
void check_policy_terms(const Context& ctx, const char* op, const PolicyTerms& terms, int64_t targets);

/// PolicyTerms as kernels see them.
struct TermPointers {
    const int32_t *begins, *sequences, *targets, *target_begins, *target_terms;
    const float *weights, *advantages;
    const float *old, *reference, *importance, *rewards;  ///< or null
    const double* lengths;
    PolicySettings settings;
    PolicyTotals totals;
};
TermPointers pointers_of(const PolicyTerms& terms);

/// The numbers first, first + step, ... of a list: what one of `step` threads adds.
struct Stride {
    int32_t first = 0, step = 1;
};

COLONNADE_HOST_DEVICE inline PolicyTerm term_at(const TermPointers& p, int32_t t, double nll) {
    const double logp = -nll, old = p.old ? static_cast<double>(p.old[t]) : logp;
    return {logp, old == old ? old : logp, static_cast<double>(p.advantages[t]),
            p.reference ? static_cast<double>(p.reference[t]) : 0,
            p.importance ? static_cast<double>(p.importance[t]) : 1};
}

/// d loss / d nll of a target at RatioLevel::token: the part of the sum over its terms that belongs to a thread.
COLONNADE_HOST_DEVICE inline double scale_of_target(const TermPointers& p, int64_t target, double nll, Stride part) {
    double sum = 0;
    for (int32_t k = p.target_begins[target] + part.first; k < p.target_begins[target + 1]; k += part.step) {
        const int32_t t = p.target_terms[k];
        const auto weight = static_cast<double>(p.weights[t]);
        if (weight == 0) continue;  // 0 times an infinite slope would be NaN
        const double scale = term_scale(p.settings.loss, p.totals, p.lengths[p.sequences[t]]);
        sum -= weight * scale * policy_term(p.settings, term_at(p, t, nll)).slope;
    }
    return sum;
}

}  // namespace colonnade
