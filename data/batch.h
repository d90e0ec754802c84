#pragma once
// Batch: packed rows as the model takes them. `packs` rows of `length` tokens, each holding several samples kept apart by
// the column mask, positions that restart per sample (and continue from the stem in each branch), and the list of targets.

#include <cstdint>
#include <vector>

#include "attention/mask.h"
#include "data/sample.h"

namespace colonnade {

struct Batch {
    int64_t packs = 0, length = 0;
    std::vector<int32_t> tokens;     ///< [packs * length]; padding is token 0
    std::vector<int32_t> positions;  ///< [packs * length]; padding is 0
    ColumnMask mask;                 ///< causal, batch = packs; padding columns are seen by nobody, padding rows see nothing

    // Targets: hidden state of flat row `rows[i]` predicts token `targets[i]` with weight `weights[i]`. One row may carry
    // several targets, one per branch: the last stem token predicts the first token of every branch.
    std::vector<int32_t> rows, targets;
    std::vector<float> weights;
    std::vector<int32_t> branches;   ///< index of the branch within the batch, counted over all samples

    int64_t samples = 0, real_tokens = 0;  ///< padding apart
    double target_weight = 0;              ///< sum of weights
    int64_t tokens_total() const { return packs * length; }
};

/// Lays `packs` of samples out as one batch whose length is that of the fullest pack, rounded up to a multiple of `align`
/// (empty packs are allowed: they hold padding only). Targets: for every token i of a branch with weight > 0, the row
/// before it; the first token of a sample has no row before it and is never a target.
Batch make_batch(const std::vector<std::vector<const Sample*>>& packs, int64_t align = 1);

}  // namespace colonnade
