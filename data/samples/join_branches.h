#pragma once
// From answers to one Sample: the prompt once, as stem, and every answer as a branch.
//
// Each answer comes as a whole: prompt and answer tokenised together. The stem is what all wholes begin with alike,
// token by token, but ends before the first token that one of them learns. So it never holds a learned token: where two
// answers begin with the same words, each branch has those words of its own, and the sums over a branch's targets are
// those of its whole run alone. Wholes without a prompt of their own (Row::whole_answers) learn nothing of what they
// have in common: that is the prompt.
//
// Lengths: prompt and answer have room for max_length tokens, stem and branches together for sample_length.
// ExcessLength::truncate keeps the prompt and cuts answers at the end: each to max_length with its prompt; then, where
// all of them still do not fit, the longest ones to one common length. What is then not worth keeping is dropped and
// said so: an answer of which nothing is left to learn, answers that no longer differ.

#include <string>
#include <vector>

#include "data/samples/encode.h"

namespace colonnade {

/// Prompt and answer; weights as in Sample.
struct Whole {
    std::vector<int32_t> tokens;
    std::vector<float> weights;
};

/// Outcome, full_length (of the longest whole) and sample of an Encoded. `wholes`: two or more, best first; the sample's
/// margin is left at 0. Throws Exit::data with "where: ..." under ExcessLength::error.
Encoded join_branches(std::vector<Whole> wholes, bool whole_answers, const EncodeOptions& options,
                      const std::string& where);

}  // namespace colonnade
