#pragma once
// Rows that hold token ids. A token is learned if its label is not -100 and no loss mask is 0 there (as TRL combines
// them), and as much as token_weights says; an attention mask of 0 marks padding on either side, which is cut off.

#include <string>
#include <vector>

#include "data/rows/row_fields.h"

namespace colonnade {

/// The optional keys of a row of token ids: labels, masks, positions, weights. A pair has no weights.
std::vector<std::string> text_token_keys();
std::vector<std::string> pair_token_keys();

Row read_tokens(const RowFields& row);
/// A preference pair. Answers that both begin with the prompt's tokens contain the prompt: older TRL data sets repeat
/// it there, with labels of -100.
Row read_token_pair(const RowFields& row);

}  // namespace colonnade
