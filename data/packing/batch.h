#pragma once
// Batch: packed rows, the input of the model. It has `packs` rows of `length` tokens. A row contains several samples,
// separated by the column mask, with positions that restart for every sample (and continue from the stem in each
// branch). Targets are listed separately.
//
// Example: two samples in a pack of 8 tokens and 1 of padding. The second sample has a stem s of 2 tokens and branches
// a and b of 2 and 1.
//
//     token      x0 x1 x2  s0 s1  a0 a1  b0  -
//     position    0  1  2   0  1   2  3   2  0
//     lts         3  3  3   8  8   7  7   8  0    first row that cannot see the column any more
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
    int32_t last_row;  ///< flat row of its last token, where a reward is read. If the branch is empty, the last row of
                       ///< the stem; -1 if that is empty too
    int32_t tokens;    ///< number of its targets: its log-probability is the sum over them

    bool operator==(const Branch&) const = default;
};

struct Batch {
    int64_t packs = 0, length = 0;
    std::vector<int32_t> tokens;     ///< [packs * length]; padding is token 0
    std::vector<int32_t> positions;  ///< [packs * length]; padding is 0
    ColumnMask mask;                 ///< causal, batch = packs; no row sees a padding column, padding rows see nothing

    // Targets: the hidden state of flat row `rows[i]` predicts token `targets[i]` with weight `weights[i]`. A row may
    // have several targets, one per branch: the last stem token predicts the first token of every branch. Sorted by
    // row, then by branch.
    std::vector<int32_t> rows, targets;
    std::vector<float> weights;
    std::vector<int32_t> branches;  ///< index of each target's branch in branch_table

    std::vector<Branch> branch_table;  ///< branches of all samples, in order
    std::vector<float> margins;        ///< [samples]; 0 if the data has none
    std::vector<double> reference;     ///< [branches]: log-probabilities under the reference model; empty without one

    int64_t samples = 0, real_tokens = 0;  ///< without padding
    double target_weight = 0;              ///< sum of weights
    double pairs = 0;                      ///< samples with answers to compare: pair_count() of each
    int64_t tokens_total() const { return packs * length; }
};

/// Builds a batch from packs of samples. Its length is that of the fullest pack (at least 1), rounded up to a multiple
/// of `align`; empty packs consist of padding. Targets are those of for_each_target(). Throws Exit::internal for a
/// sample that is not as data/samples/sample.h describes.
Batch make_batch(const std::vector<std::vector<const Sample*>>& packs, int64_t align = 1);

}  // namespace colonnade
