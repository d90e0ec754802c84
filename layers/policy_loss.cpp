#include "layers/policy_loss.h"

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

void check_equal_advantages(const PolicyTerms& p) {
    if (p.settings.ratio == RatioLevel::token) return;
    const auto begins = elements<const int32_t>(p.table.begins);
    const float* const advantages = p.advantages.as<float>();
    for (size_t s = 0; s + 1 < begins.size(); ++s)
        for (int32_t t = begins[s]; t < begins[s + 1]; ++t)
            require(advantages[t] == advantages[begins[s]],
                    "policy_loss: sequence {} has the advantages {} and {}, but a ratio of sequences takes one", s,
                    advantages[begins[s]], advantages[t]);
}

PolicyNumbers loss_of_sequence(const PolicyPointers& a, int64_t sequence) {
    PolicySequenceLoss whole{};
    if (a.terms.settings.ratio != RatioLevel::token)
        whole = policy_sequence(a.terms.settings, ratio_of_terms(a, sequence, {}));
    return numbers_of_sequence(a.terms, sequence, loss_of_terms(a, sequence, whole, {}));
}

}  // namespace

PolicyPointers pointers_of(const PolicyLossStep& a) {
    return {.slopes = a.slopes.empty() ? nullptr : a.slopes.as<double>(),
            .numbers = reinterpret_cast<PolicyNumbers*>(a.scratch.as<double>()),
            .nll = a.nll.as<double>(),
            .entropy = a.entropy.empty() ? nullptr : a.entropy.as<double>(),
            .terms = pointers_of(a.terms)};
}

void policy_loss(const Context& ctx, const PolicyLossStep& a) {
    const ShapeCheck check = check_in_double(ctx, "policy_loss");
    const int64_t targets = a.nll.size(0), terms = a.terms.table.weights.size(0), sequences = a.terms.lengths.size(0);
    check("sums", a.sums, DType::f64, {PolicySums::count});
    check("extremes", a.extremes, DType::f64, {PolicyExtremes::count});
    if (!a.slopes.empty()) check("slopes", a.slopes, DType::f64, {terms});
    check("scratch", a.scratch, DType::f64, {sequences, PolicyNumbers::count});
    check("nll", a.nll, DType::f64, {targets});
    if (!a.entropy.empty()) check("entropy", a.entropy, DType::f64, {targets});
    check_policy_terms(ctx, "policy_loss", a.terms, targets);
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::policy_loss(ctx, a);
    check_equal_advantages(a.terms);
    const PolicyPointers pointers = pointers_of(a);
#pragma omp parallel for schedule(static) if (terms >= parallel_from)
    for (int64_t s = 0; s < sequences; ++s) pointers.numbers[s] = loss_of_sequence(pointers, s);
    PolicyNumbers total = no_numbers();
    for (int64_t s = 0; s < sequences; ++s) add_numbers(total, pointers.numbers[s]);
    for (int64_t k = 0; k < PolicySums::count; ++k) a.sums.as<double>()[k] += total.sums[k];
    for (int64_t k = 0; k < PolicyExtremes::count; ++k)
        a.extremes.as<double>()[k] = std::max(a.extremes.as<double>()[k], total.extremes[k]);
}

void target_scales(const Context& ctx, const TargetScales& a) {
    const ShapeCheck check = check_in_double(ctx, "target_scales");
    const int64_t targets = a.scales.size(0), terms = a.slopes.size(0);
    check("scales", a.scales, DType::f64, {targets});
    check("slopes", a.slopes, DType::f64, {terms});
    require(a.of_targets.terms.size(0) == terms, "target_scales: {} slopes of {} terms", terms,
            a.of_targets.terms.size(0));
    check_terms_of_targets(ctx, "target_scales", a.of_targets, targets);
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::target_scales(ctx, a);
    for (int64_t i = 0; i < targets; ++i)
        a.scales.as<double>()[i] = scale_from_slopes(a.of_targets.begins.as<int32_t>(),
                                                     a.of_targets.terms.as<int32_t>(), a.slopes.as<double>(), i);
}

void importance_factors(const Context& ctx, const ImportanceFactors& a) {
    const ShapeCheck check = check_in_double(ctx, "importance_factors");
    const int64_t terms = a.factors.size(0);
    check("factors", a.factors, DType::f32, {terms});
    check("old", a.old, DType::f32, {terms});
    check("sampled", a.sampled, DType::f32, {terms});
    check("begins", a.begins, DType::i32, {a.begins.size(0)});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::importance_factors(ctx, a);
    check_begins("importance_factors", "begins", a.begins, terms);
    const auto begins = elements<const int32_t>(a.begins);
    const float *const old = a.old.as<float>(), *const sampled = a.sampled.as<float>();
    for (size_t s = 0; s + 1 < begins.size(); ++s) {
        double sum = 0;
        for (int32_t t = begins[s]; t < begins[s + 1]; ++t) sum += sampler_log_ratio(old[t], sampled[t]);
        for (int32_t t = begins[s]; t < begins[s + 1]; ++t) {
            const double log_ratio = is_of_sequence(a.settings.mode) ? sum : sampler_log_ratio(old[t], sampled[t]);
            a.factors.as<float>()[t] = static_cast<float>(importance_factor(a.settings, log_ratio));
        }
    }
}

}  // namespace colonnade
