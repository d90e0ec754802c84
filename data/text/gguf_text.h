#pragma once
// The pairs of a GGUF file that say how text becomes tokens and how a chat is written.

#include "data/text/chat_template.h"
#include "data/text/text_folder.h"
#include "engine/io/gguf_writer.h"

namespace colonnade {

struct GgufText {
    std::string source{};                           ///< as for read_text_folder
    std::shared_ptr<const Tokenizer> tokenizer{};   ///< what training encoded with; null: the file takes ids alone
    TokenAdditions additions{};                     ///< what the tokenizer has beside the tokens of the source
    std::vector<TextFolder::Template> templates{};  ///< to write: Jinja by name
    std::shared_ptr<const ChatTemplate> chat{};     ///< what chats are rendered with; null: nothing is compared
    std::vector<int32_t> end_ids{};                 ///< tokens that end an answer, the template's first
    std::optional<int32_t> bos{}, pad{};            ///< of the model; the tokenizer's come first
    int64_t vocab_size = 0;                         ///< rows of the embedding; unused tokens fill the list up
};

/// Adds tokenizer.ggml.* and tokenizer.chat_template. Returns one line for everything that llama.cpp does otherwise, so
/// that ids differ from those of training. Throws Exit::data as gguf_vocabulary() does. The pairs of a source that is a
/// GGUF file itself are copied.
///
/// llama.cpp puts the space that SentencePiece has in front of a document behind every special token as well. If the ids
/// of a short chat then differ from those of training, and do not without that space, add_space_prefix becomes false.
std::vector<std::string> add_text_pairs(const GgufText& text, GgufPairs& pairs);

/// The ids that llama.cpp gives a text whose special tokens are parsed, by a SentencePiece tokenizer.
std::vector<int32_t> llama_cpp_ids(const Tokenizer& tokenizer, std::string_view text, bool add_space_prefix);

}  // namespace colonnade
