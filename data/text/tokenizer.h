#pragma once
// Tokenizer: text to token ids and back with a SentencePiece model. Model files are not trusted: a file is parsed and
// checked with protobuf, then tried in a child process, and only then used. A damaged one is a clear error
// (Exit::data), not a crash.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/word_cache.h"

namespace colonnade {

class Tokenizer {
  public:
    /// `path`: a tokenizer.model, or a folder that contains one. Throws Exit::data for anything else. The error for a
    /// folder with only tokenizer.json, and for a tiktoken list named tokenizer.model, says that rows of token ids
    /// work.
    static std::shared_ptr<const Tokenizer> load(const std::string& path);

    /// Encodes plain text without special tokens. `dummy_prefix`: the model adds its leading space; only the start of a
    /// sequence has one, not text after a special token. `words`: a cache of this thread and this tokenizer, which
    /// saves time and does not change the result. Thread-safe.
    std::vector<int32_t> encode(std::string_view text, bool dummy_prefix = true, WordCache* words = nullptr) const;
    /// Returns the text of `ids` without the model's leading space. Control pieces (<s>, </s>, <pad>) have no text.
    std::string decode(const std::vector<int32_t>& ids) const;

    /// Returns the id of a piece such as "<|im_end|>" or "</s>"; nothing if the model has no such piece.
    std::optional<int32_t> piece_id(std::string_view piece) const;
    std::string piece(int32_t id) const;
    int32_t vocab_size() const;
    std::optional<int32_t> bos() const, eos() const, pad() const, unk() const;
    const std::string& path() const;          ///< the .model file
    const std::string& content_hash() const;  ///< hex SHA-256 of the file

    struct Impl;
    explicit Tokenizer(std::unique_ptr<Impl> impl);
    ~Tokenizer();

  private:
    std::unique_ptr<Impl> impl_;
};

struct TokenizerTraining {
    std::vector<std::string> text_files;  ///< text with one sentence per line, or .jsonl: the texts of its rows
    std::string output;                   ///< writes <output>.model and a readable <output>.vocab (piece, tab, score)
    int32_t vocab_size = 8000;
    std::string model_type = "bpe";           ///< bpe | unigram
    std::vector<std::string> special_tokens;  ///< user-defined symbols, such as the chat template's markers
    int threads = 1;                          ///< for bpe; the result does not depend on it (unigram always uses 16)
};
/// Trains a SentencePiece model with identity normalisation, byte fallback, kept white space and split digits: decoding
/// returns the encoded text, except for U+2581, which SentencePiece uses for the space. Ids: unk 0, bos 1 (<s>), eos 2
/// (</s>), pad 3 (<pad>). Throws Exit::config for options that do not fit the text, Exit::data for bad text files.
void train_tokenizer(const TokenizerTraining& options);

}  // namespace colonnade
