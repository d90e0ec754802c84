#include "layers/preference_loss.h"

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

/// These ops compute in double for every dtype of the model: only devices and shapes are checked.
ShapeCheck shape_check(const Context& ctx, const char* op) {
    return {ctx, op, ctx.device == Device::cuda ? DType::bf16 : DType::f64};
}

}  // namespace

void branch_log_probabilities(const Context& ctx, const BranchLogProbabilities& a) {
    const ShapeCheck check = shape_check(ctx, "branch_log_probabilities");
    const int64_t targets = a.nll.size(0), branches = a.logps.size(0);
    check("logps", a.logps, DType::f64, {branches});
    check("nll", a.nll, DType::f64, {targets});
    check("weights", a.weights, DType::f32, {targets});
    check("order", a.order, DType::i32, {targets});
    check("begins", a.begins, DType::i32, {branches + 1});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::branch_log_probabilities(ctx, a);
    const auto order = elements<const int32_t>(a.order), begins = elements<const int32_t>(a.begins);
    const double* nll = a.nll.as<double>();
    const float* weights = a.weights.as<float>();
    for (int64_t b = 0; b < branches; ++b) {
        double sum = 0;
        for (const int32_t i :
             order.subspan(static_cast<size_t>(begins[b]), static_cast<size_t>(begins[b + 1] - begins[b])))
            sum += static_cast<double>(weights[i]) * nll[i];
        a.logps.as<double>()[b] = -sum;
    }
}

void preference_loss(const Context& ctx, const PreferencePairs& a) {
    const ShapeCheck check = shape_check(ctx, "preference_loss");
    const int64_t branches = a.logps.size(0), pairs = a.pairs.size(0);
    check("sums", a.sums, DType::f64, {PairSums::count});
    if (!a.coefficients.empty()) check("coefficients", a.coefficients, DType::f64, {branches});
    check("logps", a.logps, DType::f64, {branches});
    for (int i = 0; i < a.mix.count; ++i)
        require(!a.reference.empty() || !needs_reference(a.mix.losses[i]), "preference_loss: no reference is given");
    if (!a.reference.empty()) check("reference", a.reference, DType::f64, {branches});
    check("lengths", a.lengths, DType::f64, {branches});
    check("pairs", a.pairs, DType::i32, {pairs, 2});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::preference_loss(ctx, a);
    const int32_t* const of_pairs = a.pairs.as<int32_t>();
    const double* const reference = a.reference.empty() ? nullptr : a.reference.as<double>();
    PairSums total{};
    for (int64_t i = 0; i < pairs; ++i) {
        for (const int64_t side : {0, 1})
            require(of_pairs[2 * i + side] >= 0 && of_pairs[2 * i + side] < branches,
                    "preference_loss: pair {} has branch {} of {}", i, of_pairs[2 * i + side], branches);
        const PairScores pair = scores_of_pair(of_pairs, i, a.logps.as<double>(), reference, a.lengths.as<double>());
        const PairLoss loss = pair_loss(a.mix, pair);
        if (!a.coefficients.empty()) {
            a.coefficients.as<double>()[of_pairs[2 * i]] = a.scale * loss.d_chosen;
            a.coefficients.as<double>()[of_pairs[2 * i + 1]] = a.scale * loss.d_rejected;
        }
        const PairSums own = sums_of(pair, loss, a.mix.beta, reference != nullptr);
        for (int k = 0; k < PairSums::count; ++k) total.of[k] += own.of[k];
    }
    for (int k = 0; k < PairSums::count; ++k) a.sums.as<double>()[k] += total.of[k];
}

void target_coefficients(const Context& ctx, const TargetCoefficients& a) {
    const ShapeCheck check = shape_check(ctx, "target_coefficients");
    const int64_t targets = a.scales.size(0);
    check("scales", a.scales, DType::f64, {targets});
    check("coefficients", a.coefficients, DType::f64, {a.coefficients.size(0)});
    check("branches", a.branches, DType::i32, {targets});
    check("weights", a.weights, DType::f32, {targets});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::target_coefficients(ctx, a);
    const auto branches = elements<const int32_t>(a.branches);
    const double* coefficients = a.coefficients.as<double>();
    for (size_t i = 0; i < branches.size(); ++i)
        a.scales.as<double>()[i] = -coefficients[branches[i]] * static_cast<double>(a.weights.as<float>()[i]);
}

}  // namespace colonnade
