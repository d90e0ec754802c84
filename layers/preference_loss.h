#pragma once
// The steps between the two passes over the head (train/objectives/preference_objective.h): log-probabilities of tokens
// become those of sequences, these become the loss of pairs of sequences, and its gradient becomes one coefficient per
// target. Sequences that share a learned token share its target, and each has a term of it (layers/term_table.h).
//
//     l_s = -sum_{terms t of s} weight_t nll_target(t)                    sequence_log_probabilities
//     loss = scale * sum_pairs weight mix(l_c, l_r)                       preference_loss: layers/preference_formulas.h
//     scale_i = -sum_{terms t of target i} (d loss / d l_s(t)) weight_t   target_coefficients: d loss / d nll_i, the
//                                                                         scales of head_loss
//
// All in double, in a fixed order: the same bits in every run.

#include "layers/preference_formulas.h"
#include "layers/term_table.h"

namespace colonnade {

struct SequenceLogProbabilities {
    Tensor logps;  ///< f64 [sequences]
    Tensor nll;    ///< f64 [targets]
    TermTable terms;
};
void sequence_log_probabilities(const Context& ctx, const SequenceLogProbabilities& args);

/// Sums over pairs. Only the loss is weighted: the others describe the answers, as TRL logs them.
struct PairSums {
    enum Name {
        loss,
        weight,
        correct,  ///< pairs whose chosen answer has the larger reward
        chosen_reward,
        rejected_reward,
        chosen_logp,
        rejected_logp,
        chosen_nll,  ///< nll per token of the chosen answer: -bar l_c
        pairs,
        count
    };
    double of[count];
};

/// Which sequences are compared. A sequence may be in several pairs, on either side.
struct PairTable {
    Tensor pairs;    ///< i32 [pairs, 2]: sequences of chosen and rejected
    Tensor weights;  ///< f32 [pairs]: what a pair's loss is multiplied by
    Tensor begins;   ///< i32 [sequences + 1]: sequence s has the sides [begins[s], begins[s + 1]) of `sides`
    Tensor sides;    ///< i32 [2 pairs]: 2 pair, + 1 if the sequence is its rejected one; in order of the pairs
};

struct PreferencePairs {
    Tensor sums;            ///< f64 [PairSums::count], unscaled, accumulated
    Tensor coefficients{};  ///< f64 [sequences], d loss / d l_s, overwritten; or empty in evaluation
    Tensor slopes{};        ///< f64 [pairs, 2], scratch if there are coefficients
    Tensor logps;           ///< f64 [sequences]
    Tensor reference{};     ///< f64 [sequences]: logps of the reference model; empty if the mix needs none
    Tensor lengths;         ///< f64 [sequences]: sum of the weights of a sequence's terms, above 0 if it is in a pair
    PairTable table;
    PreferenceMix mix;
    double scale;  ///< 1 / sum of the weights of the pairs of the whole global step
};
/// Rewards are beta s with a reference model and beta bar l without.
void preference_loss(const Context& ctx, const PreferencePairs& args);

struct TargetCoefficients {
    Tensor scales;        ///< f64 [targets]
    Tensor coefficients;  ///< f64 [sequences]
    TermTable terms;
};
void target_coefficients(const Context& ctx, const TargetCoefficients& args);

/// The loss of a pair times its weight.
COLONNADE_HOST_DEVICE inline PairLoss weighted(const PairLoss& loss, float weight) {
    const double w = static_cast<double>(weight);
    return {w * loss.value, w * loss.d_chosen, w * loss.d_rejected};
}

/// What a pair adds to the sums, for both devices; `value` is its weighted loss.
COLONNADE_HOST_DEVICE inline PairSums sums_of(const PairScores& p, double value, float weight, double beta,
                                              bool reference) {
    const double mean = p.chosen / p.chosen_length;
    const double chosen = beta * (reference ? p.chosen - p.ref_chosen : mean);
    const double rejected = beta * (reference ? p.rejected - p.ref_rejected : p.rejected / p.rejected_length);
    return {{value, static_cast<double>(weight), chosen > rejected ? 1.0 : 0.0, chosen, rejected, p.chosen, p.rejected,
             -mean, 1}};
}

/// The scores of pair i, for both devices; `reference` may be null.
COLONNADE_HOST_DEVICE inline PairScores scores_of_pair(const int32_t* pairs, int64_t i, const double* logps,
                                                       const double* reference, const double* lengths) {
    const int32_t c = pairs[2 * i], r = pairs[2 * i + 1];
    return {logps[c], logps[r], reference ? reference[c] : 0, reference ? reference[r] : 0, lengths[c], lengths[r]};
}

}  // namespace colonnade
