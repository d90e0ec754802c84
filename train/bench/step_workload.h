#pragma once
// Samples and packed rows of a benchmark, filled with random tokens: rows with given document lengths, so that other
// trainers can be timed on the same rows; samples of random length; samples that begin alike; or pairs of answers to one
// prompt.

#include <string>
#include <vector>

#include "data/packing/batch.h"
#include "data/store/store.h"
#include "engine/device/philox.h"

namespace colonnade {

/// Document lengths of each row, in order.
using RowLengths = std::vector<std::vector<int64_t>>;

/// Reads one row per line: lengths separated by blanks, each at least 1. Throws Exit::data naming file and line.
RowLengths read_row_lengths(const std::string& path);

/// Tokens of the longest row.
int64_t longest_row(const RowLengths& rows);

/// A batch of `packs` rows starting at `first` (the last row is followed by the first) with random tokens. Every token
/// but padding has a target of weight 1, the last one of a document too, so that the head does as much work as in a
/// trainer that predicts one label per position.
Batch random_batch(const RowLengths& rows, int64_t first, int64_t packs, int64_t vocab, const Philox& random);

struct RandomSamples {
    int64_t mean_length, max_length;
    int64_t tokens;  ///< lower bound for the sum over all samples
    int64_t vocab;
    uint64_t seed;
};
/// Samples of log-normal length (sigma 0.7). Every token but the first of each sample is a target.
TokenStore random_samples(const RandomSamples& wanted);

/// Samples that begin alike. A tree has a stem, a trunk that every turn but the last makes longer, and one leaf a turn:
/// what a sample learns behind the stem and the trunk so far. With trunks of 0 tokens they are answers to one prompt.
struct TreeLengths {
    int64_t stem = 0;    ///< tokens
    int64_t leaves = 0;  ///< samples of a tree
    int64_t trunk = 0;   ///< tokens that a turn adds, on average
    int64_t leaf = 0;    ///< tokens, on average
    bool shared = true;  ///< RandomSamples::tokens counts what samples share once
};
/// Leaves and parts of the trunk have log-normal lengths (sigma 0.7). A sample is cut at max_length, and the
/// tree ends when its trunk is as long. mean_length is not read.
TokenStore random_trees(const TreeLengths& lengths, const RandomSamples& wanted);

struct PairLengths {
    int64_t prompt, chosen, rejected;  ///< tokens, each at least 1
    bool repeat_prompts = false;       ///< each answer has its own prompt, as in trainers that cannot share prompts
    int64_t tokens() const { return (repeat_prompts ? 2 : 1) * prompt + chosen + rejected; }
};
/// Preference pairs of random tokens with these lengths. Every token of an answer is a target. With repeated prompts
/// the pairs are the same and have the same loss.
TokenStore random_pairs(const PairLengths& lengths, int64_t pairs, int64_t vocab, uint64_t seed);

}  // namespace colonnade
