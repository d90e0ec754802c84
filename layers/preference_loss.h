#pragma once
// The steps between the two passes over the head (train/objectives/preference_objective.h): log-probabilities of tokens
// become those of answers, these become the loss of pairs of answers, and its gradient becomes one coefficient per
// token.
//
//     l_b = -sum_{i of b} weight_i nll_i            branch_log_probabilities
//     loss = scale * sum_pairs mix(l_c, l_r)        preference_loss: the mix of layers/preference_formulas.h
//     scale_i = -(d loss / d l_b(i)) weight_i       target_coefficients: d loss / d nll_i, the scales of head_loss
//
// All in double, in a fixed order: the same bits in every run.

#include "engine/device/context.h"
#include "layers/preference_formulas.h"

namespace colonnade {

struct BranchLogProbabilities {
    Tensor logps;    ///< f64 [branches]
    Tensor nll;      ///< f64 [targets]
    Tensor weights;  ///< f32 [targets]
    Tensor order;    ///< i32 [targets]: the targets of branch 0, then of branch 1, ...
    Tensor begins;   ///< i32 [branches + 1]: the targets of branch b are order[begins[b], begins[b + 1])
};
void branch_log_probabilities(const Context& ctx, const BranchLogProbabilities& args);

/// Sums over pairs.
struct PairSums {
    enum Name {
        loss,
        pairs,
        correct,  ///< pairs whose chosen answer has the larger reward
        chosen_reward,
        rejected_reward,
        chosen_logp,
        rejected_logp,
        chosen_nll,  ///< nll per token of the chosen answer: -bar l_c
        count
    };
    double of[count];
};

struct PreferencePairs {
    Tensor sums;            ///< f64 [PairSums::count], unscaled, accumulated
    Tensor coefficients{};  ///< f64 [branches], d loss / d l_b, overwritten; or empty in evaluation
    Tensor logps;           ///< f64 [branches]
    Tensor reference{};     ///< f64 [branches]: logps of the reference model; empty if the mix needs none
    Tensor lengths;         ///< f64 [branches]: sum of the weights of a branch's targets, above 0
    Tensor pairs;           ///< i32 [pairs, 2]: branches of chosen and rejected; each branch is in one pair
    PreferenceMix mix;
    double scale;  ///< 1 / pairs of the whole global step
};
/// Rewards are beta s with a reference model and beta bar l without.
void preference_loss(const Context& ctx, const PreferencePairs& args);

struct TargetCoefficients {
    Tensor scales;        ///< f64 [targets]
    Tensor coefficients;  ///< f64 [branches]
    Tensor branches;      ///< i32 [targets]
    Tensor weights;       ///< f32 [targets]
};
void target_coefficients(const Context& ctx, const TargetCoefficients& args);

/// What a pair adds to the sums, for both devices; `loss` is its pair_loss().
COLONNADE_HOST_DEVICE inline PairSums sums_of(const PairScores& p, const PairLoss& loss, double beta, bool reference) {
    const double mean = p.chosen / p.chosen_length;
    const double chosen = beta * (reference ? p.chosen - p.ref_chosen : mean);
    const double rejected = beta * (reference ? p.rejected - p.ref_rejected : p.rejected / p.rejected_length);
    return {{loss.value, 1, chosen > rejected ? 1.0 : 0.0, chosen, rejected, p.chosen, p.rejected, -mean}};
}

/// The scores of pair i, for both devices; `reference` may be null.
COLONNADE_HOST_DEVICE inline PairScores scores_of_pair(const int32_t* pairs, int64_t i, const double* logps,
                                                       const double* reference, const double* lengths) {
    const int32_t c = pairs[2 * i], r = pairs[2 * i + 1];
    return {logps[c], logps[r], reference ? reference[c] : 0, reference ? reference[r] : 0, lengths[c], lengths[r]};
}

}  // namespace colonnade
