#pragma once
// prepare_report: what `prepare` prints about a token store: counts, lengths, suspicious rows, tokens saved by sharing
// prompts and prefixes, packing efficiency, and the first sample token by token with its loss mask, so that a wrong template or mask
// is noticed before training.

#include <string>
#include <vector>

#include "data/packing/packer.h"
#include "data/store/build_store.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// How a sample shows what is trained on: in [brackets], while brackets of its own text are \[ and \], and \ is \\;
/// or, on a terminal, underlined.
enum class LearnedMark { brackets, underline };
/// "in [brackets]", "underlined".
const char* text_of(LearnedMark mark);

/// Returns several lines of text. The packing table is that of epoch 0. If `tokenizer` is null, ids stand for pieces.
std::string prepare_report(const StoreResult& result, const PackSettings& packing, const Tokenizer* tokenizer,
                           LearnedMark mark = LearnedMark::brackets);

/// What the samples of a row share: "2.31M of 9.44M tokens are computed, 4.1 times fewer; at best 2.2M", where the saved tokens
/// come from, and the stems that save most. One line each; none if rows do not share.
std::vector<std::string> sharing_text(const StoreResult& split, const PackSettings& packing);

/// "What ▁is [▁it </s>]": pieces separated by spaces, trained ones marked; only the head and the tail of a long
/// sample. A sample with several branches has one line for the prompt and one for each answer.
std::string render_sample(const Sample& sample, const Tokenizer* tokenizer, LearnedMark mark = LearnedMark::brackets);

/// A line for files that were left out, for each kind of row that was dropped, cut or looks wrong, for columns that were
/// not used, and for markers that the tokenizer lacks. Each begins with `indent` and a name in 26 characters.
std::string row_report(const StoreStatistics& statistics, const std::string& indent = "  ");

/// A sample as the model reads it: its text with special tokens and line ends visible, trained parts marked. Only the
/// head and the tail of a long one.
std::string sample_text(const Sample& sample, const Tokenizer& tokenizer, LearnedMark mark = LearnedMark::brackets);

}  // namespace colonnade
