#pragma once
// The loss of a reward model: the scores of a sample's answers, which are ranked best first, should be in that order.
//
//     pairwise        mean over i < j of -log sigma(r_i - r_j - margin)                  a pair: Bradley-Terry
//     plackett_luce   sum over i of log(sum over j >= i of exp r_j) - r_i                 the ranking's likelihood
//     centering       + center mean over i < j of (r_i + r_j)^2                           arXiv 2312.09244
//
// Every sample has weight 1, whatever its number of answers. For two answers and no margin both losses are the same.

#include <cmath>

#include "engine/device/context.h"
#include "layers/preference_formulas.h"

namespace colonnade {

enum class RankingKind : int32_t { pairwise, plackett_luce };

/// Sums over samples with at least two answers.
struct RankingSums {
    enum Name {
        loss,
        samples,
        correct,  ///< share of a sample's pairs whose better answer scores higher
        margin,   ///< mean of r_i - r_j over these pairs
        reward,   ///< sum over answers
        answers,
        count
    };
    double of[count];
};

struct RankingLoss {
    Tensor sums;           ///< f64 [RankingSums::count], unscaled, accumulated
    Tensor extremes;       ///< f64 [2]: minus the lowest reward, and the highest; updated by maximum
    Tensor dscores;        ///< f64 [answers], d loss / d score, overwritten
    Tensor scores;         ///< f64 [answers]: the answers of sample 0, best first, then those of sample 1, ...
    Tensor sample_begins;  ///< i32 [samples + 1]: sample s has answers [begins[s], begins[s + 1])
    Tensor margins;        ///< f32 [samples]; pairwise only
    RankingKind kind = RankingKind::pairwise;
    double center = 0;
    double scale = 1;  ///< 1 / samples of the whole global step
};
/// Computes in double and in a fixed order: the same bits in every run.
void ranking_loss(const Context& ctx, const RankingLoss& args);

struct RankingSettings {
    RankingKind kind;
    double center, scale;
};

/// One sample of k answers with scores r, for both devices. Writes their gradients to d.
COLONNADE_HOST_DEVICE inline RankingSums rank_answers(const RankingSettings& s, const double* r, int32_t k,
                                                      double margin, double* d) {
    for (int32_t i = 0; i < k; ++i) d[i] = 0;
    if (k < 2) return {};
    RankingSums sums{};
    const double share = 2.0 / (static_cast<double>(k) * (k - 1));  // of a pair
    const bool pairwise = s.kind == RankingKind::pairwise;
    if (!pairwise) {
        // First d[i] is the log of the sum over j >= i of exp r_j; then, from the last to the first, the gradient.
        double left = r[k - 1];
        d[k - 1] = left;
        for (int32_t i = k - 2; i >= 0; --i) {
            left = fmax(left, r[i]) + log1p(exp(-fabs(left - r[i])));
            d[i] = left;
            sums.of[RankingSums::loss] += left - r[i];
        }
        for (int32_t j = k - 1; j >= 0; --j) {
            double slope = j < k - 1 ? -1 : 0;
            for (int32_t i = 0; i <= j && i < k - 1; ++i) slope += exp(r[j] - d[i]);
            d[j] = slope * s.scale;
        }
    }
    for (int32_t i = 0; i < k; ++i) {
        for (int32_t j = i + 1; j < k; ++j) {
            const double gap = r[i] - r[j], both = r[i] + r[j], pull = 2 * s.center * both * share * s.scale;
            sums.of[RankingSums::loss] += s.center * both * both * share;
            sums.of[RankingSums::correct] += gap > 0 ? share : 0;
            sums.of[RankingSums::margin] += gap * share;
            d[i] += pull;
            d[j] += pull;
            if (!pairwise) continue;
            const double push = sigmoid(margin - gap) * share * s.scale;
            sums.of[RankingSums::loss] -= log_sigmoid(gap - margin) * share;
            d[i] -= push;
            d[j] += push;
        }
        sums.of[RankingSums::reward] += r[i];
    }
    sums.of[RankingSums::samples] = 1;
    sums.of[RankingSums::answers] = k;
    return sums;
}

}  // namespace colonnade
