#pragma once
// Batch: packed rows as the model takes them. `packs` rows of `length` tokens, each holding several samples kept apart
// by the column mask, positions that restart per sample (and continue from the stem in each branch), and the list of
// targets.
//
// Two samples, the second with a stem s of 2 and branches a and b of 2 and 1, in a pack of 8 + 1 padding:
//
//     token      x0 x1 x2  s0 s1  a0 a1  b0  -
//     position    0  1  2   0  1   2  3   2  0
//     lts         3  3  3   8  8   7  7   8  0    the first row that may no longer see the column
//     targets    (0,x1) (1,x2) (4,a0) (4,b0) (5,a1)    (row, token); row 4 = s1 has two

#include <cstdint>
#include <span>
#include <vector>

#include "attention/mask.h"
#include "data/sample.h"

namespace colonnade {

struct Batch {
    int64_t packs = 0, length = 0;
    std::vector<int32_t> tokens;     ///< [packs * length]; padding is token 0
    std::vector<int32_t> positions;  ///< [packs * length]; padding is 0
    ColumnMask mask;  ///< causal, batch = packs; padding columns are seen by nobody, padding rows see nothing

    // Targets: hidden state of flat row `rows[i]` predicts token `targets[i]` with weight `weights[i]`. One row may
    // carry several targets, one per branch: the last stem token predicts the first token of every branch. Sorted by
    // row, then branch.
    std::vector<int32_t> rows, targets;
    std::vector<float> weights;
    std::vector<int32_t> branches;  ///< index of the branch within the batch, counted over all samples

    int64_t samples = 0, real_tokens = 0;  ///< padding apart
    double target_weight = 0;              ///< sum of weights
    int64_t tokens_total() const { return packs * length; }
};

/// Lays `packs` of samples out as one batch whose length is that of the fullest pack (at least 1), rounded up to a
/// multiple of `align` (empty packs are allowed: they hold padding only). Targets: for every token i of a branch with
/// weight > 0, the row before it; the first token of a sample has no row before it and is never a target, stem tokens
/// are never targets. Throws Exit::internal for a sample that breaks the promises of data/sample.h.
Batch make_batch(const std::vector<std::vector<const Sample*>>& packs, int64_t align = 1);

/// Sum of the weights of the targets that make_batch would give a sample with these weights and branches.
double target_weight(std::span<const float> weights, std::span<const int32_t> branch_begins);

}  // namespace colonnade
