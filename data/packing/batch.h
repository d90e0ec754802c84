#pragma once
// Batch: packed rows, the input of the model. It has `packs` rows of `length` tokens. A row contains the sequences of
// several samples as prefix trees: a token that sequences share is there once, positions are those of each sequence
// alone, and the column mask lets a token see its own sequence's earlier tokens and nothing else. Targets are listed
// separately.
//
// Example: two samples in a pack of 8 tokens and 1 of padding. The second sample has a stem s of 2 tokens, and two
// sequences: one continues with a (2 tokens), the other with b (1).
//
//     token      x0 x1 x2  s0 s1  a0 a1  b0  -
//     position    0  1  2   0  1   2  3   2  0
//     lts         3  3  3   8  8   7  7   8  0    first row that cannot see the column any more
//     targets    (0,x1) (1,x2) (4,a0) (4,b0) (5,a1)    (row, token); row 4 = s1 has two
//     terms      x: targets 0, 1      s a: targets 2, 4      s b: target 3
//
// Layout: a stack holds the rows of the current sequence's tokens. The next sequence first pops it to what it shares
// with this one; the subtrees of the popped tokens end there, which is their lts. Then its own tokens are pushed, at the
// next rows, with their depth as position.

#include <cstdint>
#include <vector>

#include "attention/mask.h"
#include "data/samples/sample.h"

namespace colonnade {

/// One sequence of a batch. They are numbered sample by sample, pack by pack, wherever their tokens are.
struct BatchSequence {
    int32_t sample;    ///< index of its sample within the batch
    int32_t rank;      ///< its number in the sample
    int32_t last_row;  ///< flat row of its last token, where a reward is read; -1 if it has no token

    bool operator==(const BatchSequence&) const = default;
};

struct Batch {
    int64_t packs = 0, length = 0;
    std::vector<int32_t> tokens;     ///< [packs * length]; padding is token 0
    std::vector<int32_t> positions;  ///< [packs * length]; padding is 0
    ColumnMask mask;                 ///< causal, batch = packs; no row sees a padding column, padding rows see nothing

    // Targets: the hidden state of flat row `rows[i]` predicts token `targets[i]`. A row has as many as tokens follow it
    // that are learned. Sorted by row, then in the order of the tokens.
    std::vector<int32_t> rows, targets;
    std::vector<double> weights;  ///< of each target: sum over its terms

    // Terms: sequence s learns target term_targets[i] with weight term_weights[i] for i in [term_begins[s],
    // term_begins[s + 1]), in order of its tokens. A target that several sequences learn has a term of each.
    std::vector<int32_t> term_begins = {0}, term_targets;
    std::vector<float> term_weights;

    GivenLogps logps;  ///< of each term: all, or none if the data set gives none

    /// Of each target, if sequences have lists of a teacher. Then a target has one term: those that several sequences
    /// learn are there once for each, because their lists may differ.
    TeacherLists teacher;

    std::vector<BatchSequence> sequences;    ///< of all samples, in order
    std::vector<float> advantages;           ///< [sequences]
    std::vector<float> rewards;              ///< [sequences]; NaN is one that is not known
    std::vector<AnswerPair> pairs;           ///< of all samples, in order; numbers of sequences of the batch
    std::vector<int32_t> pair_begins = {0};  ///< [samples + 1]: sample s has pairs [pair_begins[s], pair_begins[s + 1])
    std::vector<double> reference;  ///< [sequences]: log-probabilities under the reference model; empty without one

    int64_t samples = 0, real_tokens = 0;  ///< without padding
    double target_weight = 0;              ///< sum of weights
    double pair_weight = 0;                ///< sum of the weights of pairs
    double ranking_weight = 0;             ///< sum over samples of the mean weight of their pairs
    int64_t tokens_total() const { return packs * length; }
};

/// What the sequences of a pack share.
enum class Sharing {
    sample,  ///< what the sequences of each sample say that they have in common
    row,     ///< whatever any two sequences of the pack begin with; largest subtrees come first
};

struct BatchOptions {
    int64_t align = 1;  ///< the length is a multiple of it
    Sharing sharing = Sharing::sample;
};

/// Builds a batch from packs of samples. Its length is that of the fullest pack (at least 1), rounded up; empty packs
/// consist of padding. Throws Exit::internal for a sample that is not as data/samples/sample.h describes.
Batch make_batch(const std::vector<std::vector<const Sample*>>& packs, const BatchOptions& options = {});

/// Where make_batch puts the tokens of a pack: entry i of list s is the row, within the pack, of token i of sequence s of
/// all samples.
std::vector<std::vector<int32_t>> token_rows(const std::vector<const Sample*>& pack, Sharing sharing);

}  // namespace colonnade
