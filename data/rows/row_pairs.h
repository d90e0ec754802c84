#pragma once
// What a row says about the pairs of its answers: margin, weight, and which answers are compared.

#include "data/rows/row_messages.h"

namespace colonnade {

/// 0 without the key.
float read_margin(const RowFields& row);
/// Reads `pairs`: a list of [better, worse], or of objects with these and margin and weight. Answers have the numbers 0
/// to answers - 1; no two pairs compare the same ones.
std::vector<RowPair> read_row_pairs(const RowFields& row, size_t answers);
/// Leaves out the answers that no pair has.
void keep_compared(Row& row);
/// Adds what stands beside the answers: the margin, and for chats the variables of the template. Throws for a message
/// with a weight other than 0 and 1.
Row with_settings(const RowFields& row, Row result, MessageStyle style);

}  // namespace colonnade
