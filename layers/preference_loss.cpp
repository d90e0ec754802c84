#include "layers/preference_loss.h"

#include "layers/cuda_kernels.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

/// Sum of body(entry) over the entries of list i.
template <typename Body>
double sum_of_list(const Tensor& begins, int64_t i, Body&& body) {
    double sum = 0;
    for (int32_t at = begins.as<int32_t>()[i]; at < begins.as<int32_t>()[i + 1]; ++at) sum += body(at);
    return sum;
}

}  // namespace

void sequence_log_probabilities(const Context& ctx, const SequenceLogProbabilities& a) {
    const ShapeCheck check = check_in_double(ctx, "sequence_log_probabilities");
    const int64_t targets = a.nll.size(0), sequences = a.logps.size(0);
    check("logps", a.logps, DType::f64, {sequences});
    check("nll", a.nll, DType::f64, {targets});
    check_term_table(ctx, check.op(), a.terms, sequences, targets);
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::sequence_log_probabilities(ctx, a);
    const double* nll = a.nll.as<double>();
    for (int64_t s = 0; s < sequences; ++s)
        a.logps.as<double>()[s] = -sum_of_list(a.terms.begins, s, [&](int32_t term) {
            return static_cast<double>(a.terms.weights.as<float>()[term]) * nll[a.terms.targets.as<int32_t>()[term]];
        });
}

void preference_loss(const Context& ctx, const PreferencePairs& a) {
    const ShapeCheck check = check_in_double(ctx, "preference_loss");
    const int64_t sequences = a.logps.size(0), pairs = a.table.pairs.size(0);
    const bool backward = !a.coefficients.empty();
    check("sums", a.sums, DType::f64, {PairSums::count});
    if (backward) check("coefficients", a.coefficients, DType::f64, {sequences});
    if (backward) check("slopes", a.slopes, DType::f64, {pairs, 2});
    check("logps", a.logps, DType::f64, {sequences});
    for (int i = 0; i < a.mix.count; ++i)
        require(!a.reference.empty() || !needs_reference(a.mix.losses[i]), "preference_loss: no reference is given");
    if (!a.reference.empty()) check("reference", a.reference, DType::f64, {sequences});
    check("lengths", a.lengths, DType::f64, {sequences});
    check("pairs", a.table.pairs, DType::i32, {pairs, 2});
    check("pairs.weights", a.table.weights, DType::f32, {pairs});
    check("pairs.begins", a.table.begins, DType::i32, {sequences + 1});
    check("pairs.sides", a.table.sides, DType::i32, {2 * pairs});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::preference_loss(ctx, a);
    const int32_t* const of_pairs = a.table.pairs.as<int32_t>();
    const double* const reference = a.reference.empty() ? nullptr : a.reference.as<double>();
    PairSums total{};
    for (int64_t i = 0; i < pairs; ++i) {
        for (const int64_t side : {0, 1})
            require(of_pairs[2 * i + side] >= 0 && of_pairs[2 * i + side] < sequences,
                    "preference_loss: pair {} has sequence {} of {}", i, of_pairs[2 * i + side], sequences);
        const PairScores pair = scores_of_pair(of_pairs, i, a.logps.as<double>(), reference, a.lengths.as<double>());
        const float weight = a.table.weights.as<float>()[i];
        const PairLoss loss = weighted(pair_loss(a.mix, pair), weight);
        if (backward) {
            a.slopes.as<double>()[2 * i] = a.scale * loss.d_chosen;
            a.slopes.as<double>()[2 * i + 1] = a.scale * loss.d_rejected;
        }
        const PairSums own = sums_of(pair, loss.value, weight, a.mix.beta, reference != nullptr);
        for (int k = 0; k < PairSums::count; ++k) total.of[k] += own.of[k];
    }
    for (int k = 0; k < PairSums::count; ++k) a.sums.as<double>()[k] += total.of[k];
    for (int64_t s = 0; backward && s < sequences; ++s)
        a.coefficients.as<double>()[s] = sum_of_list(
            a.table.begins, s, [&](int32_t at) { return a.slopes.as<double>()[a.table.sides.as<int32_t>()[at]]; });
}

void target_coefficients(const Context& ctx, const TargetCoefficients& a) {
    const ShapeCheck check = check_in_double(ctx, "target_coefficients");
    const int64_t targets = a.scales.size(0), sequences = a.coefficients.size(0);
    check("scales", a.scales, DType::f64, {targets});
    check("coefficients", a.coefficients, DType::f64, {sequences});
    check_term_table(ctx, check.op(), a.terms, sequences, targets);
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::target_coefficients(ctx, a);
    const double* coefficients = a.coefficients.as<double>();
    for (int64_t i = 0; i < targets; ++i)
        a.scales.as<double>()[i] = -sum_of_list(a.terms.of_targets.begins, i, [&](int32_t at) {
            const int32_t term = a.terms.of_targets.terms.as<int32_t>()[at];
            return coefficients[a.terms.sequences.as<int32_t>()[term]] *
                   static_cast<double>(a.terms.weights.as<float>()[term]);
        });
}

}  // namespace colonnade
