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
//     branches    x: sample 0, rank 0, last row 2      a: sample 1, rank 0, last row 6      b: sample 1, rank 1, row 7

#include <cstdint>
#include <vector>

#include "attention/mask.h"
#include "data/samples/sample.h"

namespace colonnade {

/// One branch of a batch.
struct Branch {
    int32_t sample;    ///< index of its sample within the batch
    int32_t rank;      ///< place among the sample's branches: 0 is the chosen or best answer
    int32_t last_row;  ///< flat row of its last token, where a reward is read; of the stem's last where it has none,
                       ///< -1 where there is no stem either
    int32_t tokens;    ///< targets it has: its log-probability is a sum over so many

    bool operator==(const Branch&) const = default;
};

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
    std::vector<int32_t> branches;  ///< index of each target's branch in branch_table

    std::vector<Branch> branch_table;  ///< of all samples, in their order
    std::vector<float> margins;        ///< [samples]; 0 where the data gives none
    std::vector<double> reference;  ///< [branches]: log-probabilities under a reference, where one is given; else empty

    int64_t samples = 0, real_tokens = 0;  ///< padding apart
    double target_weight = 0;              ///< sum of weights
    double pairs = 0;                      ///< samples with answers to compare: pair_count() of each
    int64_t tokens_total() const { return packs * length; }
};

/// Lays `packs` of samples out as one batch whose length is that of the fullest pack (at least 1), rounded up to a
/// multiple of `align` (empty packs are allowed: they hold padding only). Targets: for every token i of a branch with
/// weight > 0, the row before it; the first token of a sample has no row before it and is never a target, stem tokens
/// are never targets. Throws Exit::internal for a sample that breaks the promises of data/samples/sample.h.
Batch make_batch(const std::vector<std::vector<const Sample*>>& packs, int64_t align = 1);

}  // namespace colonnade
