#include "layers/policy_terms.h"

#include "layers/shape_check.h"

namespace colonnade {

void check_policy_terms(const Context& ctx, const char* op, const PolicyTerms& p, int64_t targets) {
    const ShapeCheck check = check_in_double(ctx, op);
    const int64_t terms = p.table.weights.size(0), sequences = p.lengths.size(0);
    check_term_table(ctx, op, p.table, sequences, targets);
    check("lengths", p.lengths, DType::f64, {sequences});
    check("advantages", p.advantages, DType::f32, {terms});
    if (!p.old.empty()) check("old log-probabilities", p.old, DType::f32, {terms});
    require(p.settings.beta == 0 || !p.reference.empty() || terms == 0, "{}: beta is {}, but no reference is given", op,
            p.settings.beta);
    if (!p.reference.empty()) check("reference", p.reference, DType::f32, {terms});
    if (!p.importance.empty()) check("importance", p.importance, DType::f32, {terms});
    if (!p.rewards.empty()) check("rewards", p.rewards, DType::f32, {sequences});
}

TermPointers pointers_of(const PolicyTerms& p) {
    const auto given = [](const Tensor& t) { return t.empty() ? nullptr : t.as<float>(); };
    return {.begins = p.table.begins.as<int32_t>(),
            .sequences = p.table.sequences.as<int32_t>(),
            .targets = p.table.targets.as<int32_t>(),
            .target_begins = p.table.of_targets.begins.as<int32_t>(),
            .target_terms = p.table.of_targets.terms.as<int32_t>(),
            .weights = p.table.weights.as<float>(),
            .advantages = p.advantages.as<float>(),
            .old = given(p.old),
            .reference = given(p.reference),
            .importance = given(p.importance),
            .rewards = given(p.rewards),
            .lengths = p.lengths.as<double>(),
            .settings = p.settings,
            .totals = p.totals};
}

}  // namespace colonnade
