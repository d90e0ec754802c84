#include "layers/term_table.h"

#include <algorithm>

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

void check_term_table(const Context& ctx, const char* op, const TermTable& t, int64_t sequences, int64_t targets) {
    const ShapeCheck check = check_in_double(ctx, op);
    const int64_t terms = t.weights.size(0);
    check("begins", t.begins, DType::i32, {sequences + 1});
    check("sequences", t.sequences, DType::i32, {terms});
    check("targets of terms", t.targets, DType::i32, {terms});
    check("weights", t.weights, DType::f32, {terms});
    require(t.of_targets.terms.size(0) == terms, "{}: the targets have {} terms, the sequences {}", op,
            t.of_targets.terms.size(0), terms);
    check_terms_of_targets(ctx, op, t.of_targets, targets);
    if (ctx.device == Device::cuda) return;
    check_begins(op, "begins", t.begins, terms);
    check_indices(op, "sequences", t.sequences, sequences);
    check_indices(op, "targets of terms", t.targets, targets);
}

}  // namespace colonnade
