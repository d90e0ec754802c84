#pragma once
// Tokenizer: SentencePiece models, loaded with care. A model file comes from anywhere: it is parsed and checked with
// protobuf first, probed in a child process, and only then used, so that a bad one is a clear error (Exit::data), not a
// crash.

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
    /// `path`: a tokenizer.model, or a folder that holds one. A folder with only tokenizer.json is told that this
    /// reader is not there yet and that pre-tokenised rows work; a tiktoken list named tokenizer.model is recognised.
    static std::shared_ptr<const Tokenizer> load(const std::string& path);

    /// Plain text, no special tokens added. `dummy_prefix`: let the model put its leading space (only at the start of a
    /// sequence; text after a special token gets none). Thread-safe. `words`: of this thread and this tokenizer; saves
    /// time and changes nothing.
    std::vector<int32_t> encode(std::string_view text, bool dummy_prefix = true, WordCache* words = nullptr) const;
    /// The text of `ids`, less the leading space that the model puts; control pieces (<s>, </s>, <pad>) give none.
    std::string decode(const std::vector<int32_t>& ids) const;

    /// The id of a piece that exists as such ("<|im_end|>", "</s>"), or nothing.
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
    std::vector<std::string> text_files;  ///< one sentence a line; of a .jsonl file, the texts of its rows
    std::string output;                   ///< writes <output>.model, and <output>.vocab (piece, tab, score) to read
    int32_t vocab_size = 8000;
    std::string model_type = "bpe";           ///< bpe | unigram
    std::vector<std::string> special_tokens;  ///< user-defined symbols, such as the chat template's markers
    int threads = 1;  ///< of bpe; the result is the same for any number (unigram always takes 16)
};
/// Identity normalisation, byte fallback, whitespace kept, digits split: what decodes is what was encoded (but for
/// U+2581, which SentencePiece itself uses for the space). unk 0, bos 1 (<s>), eos 2 (</s>), pad 3 (<pad>).
/// Exit::config for options that the text cannot fill, Exit::data for bad text files.
void train_tokenizer(const TokenizerTraining& options);

}  // namespace colonnade
