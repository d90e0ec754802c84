#pragma once
// The loss of a reward model: of each pair of a sample's answers the better one i should score above the worse one j.
//
//     pairwise        mean over pairs of -log sigma(r_i - r_j - margin)                  a pair: Bradley-Terry
//     plackett_luce   sum over i of log(sum over j >= i of exp r_j) - r_i                 the likelihood of a ranking
//     centering       + center mean over pairs of (r_i + r_j)^2                           arXiv 2312.09244
//
// plackett_luce takes all answers of a sample as ranked best first. A sample counts as much as the mean of its pairs'
// weights, whatever its number of pairs; within it, a pair's share is its weight. For two answers and no margin both
// losses are the same.

#include <cmath>

#include "engine/device/context.h"
#include "layers/preference_formulas.h"

namespace colonnade {

enum class RankingKind : int32_t { pairwise, plackett_luce };

/// Sums over samples with pairs. Only the loss is weighted: the others describe the answers, as TRL logs them.
struct RankingSums {
    enum Name {
        loss,
        weight,   ///< mean of a sample's pairs
        correct,  ///< share of a sample's pairs whose better answer scores higher
        margin,   ///< mean of r_i - r_j over these pairs
        reward,   ///< sum over answers
        answers,
        samples,
        count
    };
    double of[count];
};

struct RankingLoss {
    Tensor sums;           ///< f64 [RankingSums::count], unscaled, accumulated
    Tensor extremes;       ///< f64 [2]: minus the lowest reward, and the highest; updated by maximum
    Tensor dscores;        ///< f64 [answers], d loss / d score, overwritten
    Tensor scores;         ///< f64 [answers]
    Tensor places;         ///< i32 [answers]: where the score of an answer is; answers are numbered sample by sample
    Tensor sample_begins;  ///< i32 [samples + 1]: sample s has answers [begins[s], begins[s + 1])
    Tensor pairs;          ///< i32 [pairs, 2]: the better and the worse answer
    Tensor pair_begins;    ///< i32 [samples + 1]: sample s has pairs [begins[s], begins[s + 1])
    Tensor margins;        ///< f32 [pairs]; pairwise only
    Tensor weights;        ///< f32 [pairs]
    RankingKind kind = RankingKind::pairwise;
    double center = 0;
    double scale = 1;  ///< 1 / sum of the samples' weights of the whole global step
};
/// Computes in double and in a fixed order: the same bits in every run.
void ranking_loss(const Context& ctx, const RankingLoss& args);

struct RankingSettings {
    RankingKind kind;
    double center, scale;
};

/// One sample: its answers and pairs, and where their numbers are.
struct RankedSample {
    const double* scores;  ///< of all samples
    double* dscores;
    const int32_t* places;  ///< of all samples
    int32_t first, answers;
    const int32_t* pairs;  ///< of this sample
    const float *margins, *weights;
    int32_t pair_count;

    COLONNADE_HOST_DEVICE double score(int32_t rank) const { return scores[places[first + rank]]; }
    COLONNADE_HOST_DEVICE double& slope(int32_t rank) const { return dscores[places[first + rank]]; }
};

/// What RankingLoss has in its tensors.
struct RankingArrays {
    const double* scores;
    double* dscores;
    const int32_t *places, *sample_begins, *pairs, *pair_begins;
    const float *margins, *weights;
};
inline RankingArrays arrays_of(const RankingLoss& a) {
    return {a.scores.as<double>(), a.dscores.as<double>(),      a.places.as<int32_t>(), a.sample_begins.as<int32_t>(),
            a.pairs.as<int32_t>(), a.pair_begins.as<int32_t>(), a.margins.as<float>(),  a.weights.as<float>()};
}
COLONNADE_HOST_DEVICE inline RankedSample ranked_sample(const RankingArrays& a, int64_t s) {
    const int32_t first = a.sample_begins[s], pair = a.pair_begins[s];
    return {a.scores,
            a.dscores,
            a.places,
            first,
            a.sample_begins[s + 1] - first,
            a.pairs + int64_t{2} * pair,
            a.margins + pair,
            a.weights + pair,
            a.pair_begins[s + 1] - pair};
}

/// For both devices. Writes the slopes of the sample's scores.
COLONNADE_HOST_DEVICE inline RankingSums rank_answers(const RankingSettings& s, const RankedSample& a) {
    const int32_t k = a.answers;
    for (int32_t i = 0; i < k; ++i) a.slope(i) = 0;
    if (a.pair_count == 0) return {};
    RankingSums sums{};
    const double share = 1.0 / a.pair_count;
    const bool pairwise = s.kind == RankingKind::pairwise;
    for (int32_t p = 0; p < a.pair_count; ++p) sums.of[RankingSums::weight] += static_cast<double>(a.weights[p]);
    const double weight = sums.of[RankingSums::weight] /= a.pair_count;
    if (!pairwise) {
        // First the slope of i is the log of the sum over j >= i of exp r_j; then, from the last to the first, the
        // gradient.
        double left = a.score(k - 1);
        a.slope(k - 1) = left;
        for (int32_t i = k - 2; i >= 0; --i) {
            left = fmax(left, a.score(i)) + log1p(exp(-fabs(left - a.score(i))));
            a.slope(i) = left;
            sums.of[RankingSums::loss] += weight * (left - a.score(i));
        }
        for (int32_t j = k - 1; j >= 0; --j) {
            double slope = j < k - 1 ? -1 : 0;
            for (int32_t i = 0; i <= j && i < k - 1; ++i) slope += exp(a.score(j) - a.slope(i));
            a.slope(j) = slope * weight * s.scale;
        }
    }
    for (int32_t p = 0; p < a.pair_count; ++p) {
        const int32_t i = a.pairs[2 * p] - a.first, j = a.pairs[2 * p + 1] - a.first;
        const double gap = a.score(i) - a.score(j), both = a.score(i) + a.score(j);
        const double part = static_cast<double>(a.weights[p]) * share;
        const double pull = 2 * s.center * both * part * s.scale;
        sums.of[RankingSums::loss] += s.center * both * both * part;
        sums.of[RankingSums::correct] += gap > 0 ? share : 0;
        sums.of[RankingSums::margin] += gap * share;
        a.slope(i) += pull;
        a.slope(j) += pull;
        if (!pairwise) continue;
        const double margin = static_cast<double>(a.margins[p]);
        const double push = sigmoid(margin - gap) * part * s.scale;
        sums.of[RankingSums::loss] -= log_sigmoid(gap - margin) * part;
        a.slope(i) -= push;
        a.slope(j) += push;
    }
    for (int32_t i = 0; i < k; ++i) sums.of[RankingSums::reward] += a.score(i);
    sums.of[RankingSums::samples] = 1;
    sums.of[RankingSums::answers] = k;
    return sums;
}

}  // namespace colonnade
