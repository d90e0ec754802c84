#pragma once
// Tokenizer: text to token ids and back. There are two kinds: tokenizer.json (data/text/hugging_face_tokenizer.h) and
// SentencePiece models (data/text/sentencepiece_tokenizer.h). data/text/text_folder.h reads a model's folder.
//
// A text is encoded in two steps, as the `tokenizers` package does: split() cuts out special and other added tokens,
// encode_between() encodes what lies between them. A chat needs both: its control tokens come from the template, and
// what users wrote must not become one.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/span.h"
#include "data/text/text_start.h"
#include "data/text/token_cache.h"

namespace colonnade {

/// What the spelling of a special token in a text becomes: its id, or the ids of its text.
enum class Spelled { token, text };
enum class SpecialTokens { keep, skip };  ///< when decoding

/// A part of a text: an added token, or text between them (`id` is -1).
struct SplitPart {
    Span bytes;
    int32_t id = -1;
    Spelled spelled = Spelled::token;  ///< for encode_between
};
struct SplitText {
    std::vector<SplitPart> parts;
    bool spelled_special = false;  ///< a special token is spelled in a plain span
};

struct Encoding {
    std::vector<int32_t> ids;
    bool spelled_special = false;  ///< the text spells a special token
};

/// Ids and names of the tokens with a role, where the model has them.
struct RoleTokens {
    std::optional<int32_t> bos, eos, pad, unk;
};

class Tokenizer {
  public:
    /// Loads a file (tokenizer.json, SentencePiece model, GGUF) or a folder (data/text/text_folder.h). Throws Exit::data
    /// for anything else.
    static std::shared_ptr<const Tokenizer> load(const std::string& path);
    virtual ~Tokenizer() = default;

    /// Cuts added tokens out of `text`, which may be a whole chat. In the `plain` spans (ascending, apart) special tokens
    /// stay text; other added tokens are found everywhere.
    virtual SplitText split(std::string_view text, std::span<const Span> plain) const = 0;
    /// Appends the ids of text from split(). The text may be a part of what split() returned: ids then do not cross its
    /// borders. `cache`: of this thread and this tokenizer.
    virtual void encode_between(std::string_view text, TextStart start, Spelled spelled, std::vector<int32_t>& ids,
                                TokenCache& cache) const = 0;
    /// Returns the text of `ids`. Throws Exit::data for an id without a piece.
    virtual std::string decode(const std::vector<int32_t>& ids, SpecialTokens special = SpecialTokens::skip) const = 0;

    /// Returns the id of a piece such as "<|im_end|>" or "</s>"; nothing if the tokenizer has no such piece.
    virtual std::optional<int32_t> piece_id(std::string_view piece) const = 0;
    virtual std::string piece(int32_t id) const = 0;
    virtual int32_t vocab_size() const = 0;  ///< the largest id + 1
    virtual bool is_special(int32_t id) const = 0;

    /// Ids around a document of plain text, by the model's own rules: its BOS, for many.
    virtual const std::vector<int32_t>& document_prefix() const = 0;
    const RoleTokens& roles() const { return roles_; }
    std::optional<int32_t> bos() const { return roles_.bos; }
    std::optional<int32_t> eos() const { return roles_.eos; }
    std::optional<int32_t> pad() const { return roles_.pad; }
    std::optional<int32_t> unk() const { return roles_.unk; }
    /// Whether a document begins as if a space stood before it, and text behind a token does not.
    bool spaces_documents() const {
        return encode("x", Spelled::text, TextStart::document) != encode("x", Spelled::text, TextStart::behind_token);
    }
    std::string piece_or_empty(std::optional<int32_t> id) const { return id ? piece(*id) : ""; }

    const std::string& path() const { return path_; }                  ///< the file that decides
    const std::string& content_hash() const { return content_hash_; }  ///< hex SHA-256 of all that decides ids

    /// Encodes a text alone, without document_prefix(). `cache` as in encode_between.
    Encoding encode(std::string_view text, Spelled spelled, TextStart start, TokenCache& cache) const;
    std::vector<int32_t> encode(std::string_view text, Spelled spelled = Spelled::text,
                                TextStart start = TextStart::document) const;

  protected:
    RoleTokens roles_;
    std::string path_, content_hash_;
};

}  // namespace colonnade
