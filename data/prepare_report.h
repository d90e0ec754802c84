#pragma once
// prepare_report: what `prepare` prints about a token store: counts, lengths, suspicious rows, tokens saved by sharing
// prompts and prefixes, packing efficiency, and the first sample token by token with its loss mask, so that a wrong template or mask
// is noticed before training.

#include <string>
#include <utility>
#include <vector>

#include "data/packing/packer.h"
#include "data/sample_text.h"
#include "data/store/build_store.h"

namespace colonnade {

/// Returns several lines of text. The packing table is that of epoch 0. If `tokenizer` is null, ids stand for pieces.
std::string prepare_report(const StoreResult& result, const PackSettings& packing, const Tokenizer* tokenizer,
                           LearnedMark mark = LearnedMark::brackets);

/// What the samples of a row share: "2.31M of 9.44M tokens are computed, 4.1 times fewer; at best 2.2M", where the saved tokens
/// come from, and the stems that save most. One line each; none if rows do not share.
std::vector<std::string> sharing_text(const StoreResult& split, const PackSettings& packing);

/// How full rows are, packed as they are and by simpler ways: "packed", "98.7% real tokens, 1.3% padding".
std::vector<std::pair<std::string, std::string>> fill_table(const StoreResult& result, const PackSettings& packing);

/// A line for files that were left out, for each kind of row that was dropped, cut or looks wrong, for columns that were
/// not used, and for markers that the tokenizer lacks. Each begins with `indent` and a name in 26 characters.
std::string row_report(const StoreStatistics& statistics, const std::string& indent = "  ");

}  // namespace colonnade
