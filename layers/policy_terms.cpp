#include "layers/policy_terms.h"

#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

void check_indices(const char* op, const char* name, const Tensor& indices, int64_t end) {
    const auto list = elements<const int32_t>(indices);
    for (size_t t = 0; t < list.size(); ++t)
        require(list[t] >= 0 && list[t] < end, "{}: {}[{}] is {}, expected [0, {})", op, name, t, list[t], end);
}

}  // namespace

void check_begins(const char* op, const char* name, const Tensor& begins, int64_t end) {
    const auto list = elements<const int32_t>(begins);
    const bool held = !list.empty() && list.front() == 0 && list.back() == end && std::ranges::is_sorted(list);
    require(held, "{}: {} {} is no ascending list from 0 to {}", op, name, begins, end);
}

void check_terms_of_targets(const Context& ctx, const char* op, const TermsOfTargets& index, int64_t targets) {
    const ShapeCheck check = check_in_double(ctx, op);
    const int64_t terms = index.terms.size(0);
    check("begins of targets", index.begins, DType::i32, {targets + 1});
    check("terms of targets", index.terms, DType::i32, {terms});
    if (ctx.device == Device::cuda) return;
    check_begins(op, "begins of targets", index.begins, terms);
    check_indices(op, "terms of targets", index.terms, terms);
}

void check_policy_terms(const Context& ctx, const char* op, const PolicyTerms& p, int64_t targets) {
    const ShapeCheck check = check_in_double(ctx, op);
    const int64_t terms = p.weights.size(0), sequences = p.lengths.size(0);
    check("begins", p.begins, DType::i32, {sequences + 1});
    check("sequences", p.sequences, DType::i32, {terms});
    check("targets of terms", p.targets, DType::i32, {terms});
    check("weights", p.weights, DType::f32, {terms});
    check("lengths", p.lengths, DType::f64, {sequences});
    check("advantages", p.advantages, DType::f32, {terms});
    if (!p.old.empty()) check("old log-probabilities", p.old, DType::f32, {terms});
    require(p.settings.beta == 0 || !p.reference.empty() || terms == 0, "{}: beta is {}, but no reference is given", op,
            p.settings.beta);
    if (!p.reference.empty()) check("reference", p.reference, DType::f32, {terms});
    if (!p.importance.empty()) check("importance", p.importance, DType::f32, {terms});
    require(p.of_targets.terms.size(0) == terms, "{}: the targets have {} terms, the sequences {}", op,
            p.of_targets.terms.size(0), terms);
    check_terms_of_targets(ctx, op, p.of_targets, targets);
    if (ctx.device == Device::cuda) return;
    check_begins(op, "begins", p.begins, terms);
    check_indices(op, "sequences", p.sequences, sequences);
    check_indices(op, "targets of terms", p.targets, targets);
}

TermPointers pointers_of(const PolicyTerms& p) {
    const auto given = [](const Tensor& t) { return t.empty() ? nullptr : t.as<float>(); };
    return {.begins = p.begins.as<int32_t>(),
            .sequences = p.sequences.as<int32_t>(),
            .targets = p.targets.as<int32_t>(),
            .target_begins = p.of_targets.begins.as<int32_t>(),
            .target_terms = p.of_targets.terms.as<int32_t>(),
            .weights = p.weights.as<float>(),
            .advantages = p.advantages.as<float>(),
            .old = given(p.old),
            .reference = given(p.reference),
            .importance = given(p.importance),
            .lengths = p.lengths.as<double>(),
            .settings = p.settings,
            .totals = p.totals};
}

}  // namespace colonnade
