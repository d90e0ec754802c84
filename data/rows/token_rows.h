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

/// Reads a list of at least one integer in [0, 2^31); `also` is accepted too.
std::vector<int32_t> read_ids(const RowFields& row, const std::string& key, int32_t also = 0,
                              const char* expected = "a token id");
/// Reads a list of 0 and 1, or of false and true, with `length` entries, as many as `ids_key` has.
std::vector<bool> read_mask(const RowFields& row, const std::string& key, const std::string& ids_key, size_t length);
/// The tokens that are no padding.
struct KeptTokens {
    size_t begin, end;

    template <typename T>
    void cut(std::vector<T>& list) const {
        list.resize(end);
        list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(begin));
    }
};
/// Reads a mask of ones, with zeros at the ends.
KeptTokens read_padding(const RowFields& row, const std::string& key, const std::string& ids_key, size_t length);

Row read_tokens(const RowFields& row);
/// A preference pair. Answers that both begin with the prompt's tokens contain the prompt: older TRL data sets repeat
/// it there, with labels of -100.
Row read_token_pair(const RowFields& row);

}  // namespace colonnade
