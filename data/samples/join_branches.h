#pragma once
// join_branches: builds one Sample from a prompt and its answers. The prompt is the stem that all of its sequences share.
//
// The input is one draft per answer: prompt and answer tokenised together. The stem is the longest common prefix of all
// drafts, token by token, that ends before the first trained token of any draft. So a stem has no trained token: if two
// answers begin with the same words, each sequence repeats those words. A row of a batch may share them still. For
// drafts without a prompt of their own (`whole_texts`), the common prefix is the prompt and is not trained on.
//
// Limits: max_length applies to the prompt with each answer, sample_length to the stem with all branches.
// ExcessLength::truncate keeps the prompt and cuts answers at the end: first each answer to max_length with its prompt;
// if the sample is still too long, then the longest answers to one common length. The row is dropped with a note if an
// answer keeps no trained token or if two answers become equal.

#include <cstdint>
#include <string>
#include <vector>

#include "data/samples/encode.h"

namespace colonnade {

/// Sequences that share with the one before what their first tokens have in common, at most `most` of them.
Sample front_code(const std::vector<TokenDraft>& wholes, size_t most = SIZE_MAX);

/// The pairs of a preference's answers; none of weight 0.
std::vector<AnswerPair> pairs_of(const Row& row, RankedPairs ranked);

/// `drafts`: two or more, the best answer first. Notes of the result include those of the drafts. The sample has no
/// pairs yet. Throws Exit::data with "where: ..." for answers that are too long with ExcessLength::error.
Encoded join_branches(std::vector<TokenDraft> drafts, bool whole_texts, const EncodeOptions& options,
                      const std::string& where);

}  // namespace colonnade
