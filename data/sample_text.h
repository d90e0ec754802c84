#pragma once
// A sample as text for people, with what is learned of it marked.

#include <string>
#include <string_view>

#include "data/samples/sample.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// How a sample shows what is trained on: in [brackets], while brackets of its own text are \[ and \], and \ is \\;
/// or, on a terminal, underlined.
enum class LearnedMark { brackets, underline };
/// "in [brackets]", "underlined".
const char* text_of(LearnedMark mark);

/// In brackets or underlined. Spaces are not underlined: they may become the end of a line.
std::string marked(std::string_view text, LearnedMark mark);
enum class Spaces { kept, escaped };
/// Escapes control characters, and what could be taken for a mark; with `spaces` these too.
std::string visible(std::string_view text, LearnedMark mark, Spaces spaces);

/// "chosen" and "rejected" of pairs; the answers of a ranking, or the turns of a chat, by number.
std::string name_of_sequence(const Sample& sample, size_t s);

/// "What ▁is [▁it </s>]": pieces separated by spaces, trained ones marked; only the head and the tail of a long
/// sample. A sample with several branches has one line for the prompt and one for each answer.
std::string render_sample(const Sample& sample, const Tokenizer* tokenizer, LearnedMark mark = LearnedMark::brackets);

/// A sample as the model reads it: its text with special tokens and line ends visible, trained parts marked. Only the
/// head and the tail of a long one.
std::string sample_text(const Sample& sample, const Tokenizer& tokenizer, LearnedMark mark = LearnedMark::brackets);

}  // namespace colonnade
