#pragma once
// HuggingFaceTokenizer: text to ids and back with a tokenizer.json. Its ids are those of the `tokenizers` package
// (0.23.3) for the same file. Models are BPE (over bytes as GPT-2's, or over U+2581 with byte fallback as Llama 2's),
// Unigram, WordPiece and WordLevel. A kind of normalizer, pre-tokenizer, post-processor or decoder that is not known,
// or a construct of a pattern, is refused by its name. "truncation" and "padding" are ignored.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/added_tokens.h"
#include "data/text/normalizer.h"
#include "data/text/pre_tokenizer.h"
#include "data/text/token_decoder.h"
#include "data/text/token_model.h"
#include "data/text/tokenizer.h"

namespace colonnade {

enum class PostProcess { yes, no };

class HuggingFaceTokenizer final : public Tokenizer {
  public:
    /// Reads a tokenizer.json of at most 64 MB. Throws Exit::data with "path: ..." for anything that is not one.
    static std::shared_ptr<const HuggingFaceTokenizer> load(const std::string& path);
    HuggingFaceTokenizer(const Json& json, const std::string& where);

    using Tokenizer::encode;
    /// Encodes a document as the package does: special tokens in the text become their ids. Ill-formed UTF-8 becomes
    /// U+FFFD first. `post_process`: adds the ids of the post-processor, such as a BOS. Throws Exit::data for more than
    /// 256 MB of text.
    std::vector<int32_t> encode_document(std::string_view text, TokenCache& cache, PostProcess post) const;

    SplitText split(std::string_view text, std::span<const Span> plain) const override;
    void encode_between(std::string_view text, TextStart start, Spelled spelled, std::vector<int32_t>& ids,
                        TokenCache& cache) const override;
    std::string decode(const std::vector<int32_t>& ids, SpecialTokens special) const override;

    std::optional<int32_t> piece_id(std::string_view piece) const override;  ///< added tokens, too
    std::string piece(int32_t id) const override;                            ///< throws Exit::data if there is none
    bool is_special(int32_t id) const override;
    int32_t vocab_size() const override { return static_cast<int32_t>(pieces_.size()); }
    const std::vector<int32_t>& document_prefix() const override { return prefix_; }
    void set_roles(const RoleTokens& roles) { roles_ = roles; }
    void set_document_prefix(std::vector<int32_t> ids) { prefix_ = std::move(ids); }

  private:
    void read_model(const Json& json);
    void read_added_tokens(const Json& json);
    void add_token(const Json& json);
    void read_post_processor(const Json& json, int depth);
    void read_template(const Json& json);
    void read_vocabulary();
    void encode_text(std::string_view text, Spelled spelled, TextStart start, std::vector<int32_t>& ids,
                     BpeCache& cache) const;
    bool spells_normalized(std::string_view text) const;

    Normalizer normalizer_;
    PreTokenizer pre_tokenizer_;
    std::unique_ptr<TokenModel> model_;
    TokenDecoder decoder_;
    std::vector<std::unique_ptr<AddedToken>> added_;
    AddedTokens raw_, normalized_;            // found before and after normalization
    bool normalizes_special_ = false;         // normalized_ holds a special token
    std::vector<int32_t> prefix_, suffix_;    // ids of the post-processor
    std::vector<const std::string*> pieces_;  // by id; null: none
    std::vector<const AddedToken*> added_by_id_;
};

}  // namespace colonnade
