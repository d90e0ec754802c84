#pragma once
// The terms of a batch. A term is a learned token of one sequence. A token that n sequences share is one target of the head
// with n terms: its logits are computed once, and d loss / d nll of the target is the sum over its terms.

#include "engine/device/context.h"

namespace colonnade {

/// The terms of target i are terms[begins[i]], ..., terms[begins[i + 1] - 1], ascending.
struct TermsOfTargets {
    Tensor begins;  ///< i32 [targets + 1]
    Tensor terms;   ///< i32 [terms]
};

struct TermTable {
    Tensor begins;              ///< i32 [sequences + 1]: sequence s has the terms [begins[s], begins[s + 1])
    Tensor sequences;           ///< i32 [terms]: the sequence of each term
    Tensor targets;             ///< i32 [terms]: the target of each term
    Tensor weights;             ///< f32 [terms]
    TermsOfTargets of_targets;  ///< the inverse of `targets`
};

/// Checks shapes and, on the CPU, that all indices are in range. On a GPU the host checks them before it uploads them.
void check_term_table(const Context& ctx, const char* op, const TermTable& table, int64_t sequences, int64_t targets);
void check_terms_of_targets(const Context& ctx, const char* op, const TermsOfTargets& index, int64_t targets);
/// `begins` must ascend from 0 to `end`; on the CPU only.
void check_begins(const char* op, const char* name, const Tensor& begins, int64_t end);

}  // namespace colonnade
