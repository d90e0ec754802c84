#pragma once
// Samples and packed rows of a benchmark, filled with random tokens: given as lengths of documents, so that another trainer
// can be timed on the same rows, drawn, or pairs of answers to one prompt.

#include <string>
#include <vector>

#include "data/packing/batch.h"
#include "data/store/store.h"
#include "engine/device/philox.h"

namespace colonnade {

/// Document lengths of each row, in order.
using RowLengths = std::vector<std::vector<int64_t>>;

/// One row per line: lengths separated by blanks, each at least 1. Throws Exit::data naming file and line.
RowLengths read_row_lengths(const std::string& path);

/// Tokens of the longest row.
int64_t longest_row(const RowLengths& rows);

/// `packs` rows from `first` on (after the last row comes the first one again) as a batch of random tokens in which
/// every token but padding carries a target of weight 1, the last one of a document too: the head then does all the
/// work it can have, and as much as that of a trainer that predicts one label per position.
Batch random_batch(const RowLengths& rows, int64_t first, int64_t packs, int64_t vocab, const Philox& random);

struct RandomSamples {
    int64_t mean_length, max_length;
    int64_t tokens;  ///< of all samples, at least
    int64_t vocab;
    uint64_t seed;
};
/// Samples of log-normal length (sigma 0.7), every token but the first one of each learned.
TokenStore random_samples(const RandomSamples& wanted);

struct PairLengths {
    int64_t prompt, chosen, rejected;  ///< tokens, each at least 1
    bool repeat_prompts = false;       ///< each answer has a prompt of its own, as in trainers that cannot share them
    int64_t tokens() const { return (repeat_prompts ? 2 : 1) * prompt + chosen + rejected; }
};
/// Preference pairs of random tokens, each of them of these lengths. Every token of an answer is learned. With repeated
/// prompts they are the same pairs, and have the same loss.
TokenStore random_pairs(const PairLengths& lengths, int64_t pairs, int64_t vocab, uint64_t seed);

}  // namespace colonnade
