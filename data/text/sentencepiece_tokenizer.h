#pragma once
// SentencePieceTokenizer: a SentencePiece model, with the added tokens of its folder. Model files are not trusted: a file
// is parsed and checked with protobuf, then tried in a child process, and only then used. A damaged one is a clear error
// (Exit::data), not a crash.
//
// Only the start of a document has the model's leading space, not text behind a special token. Special are the control
// pieces, such as </s>, user-defined pieces written <|...|>, <..._of_...> or [INST], and added tokens marked special.

#include "data/text/added_tokens.h"
#include "data/text/tokenizer.h"

namespace colonnade {

class SentencePieceTokenizer final : public Tokenizer {
  public:
    struct Options {
        std::vector<AddedToken> added;  ///< tokens beyond the model's pieces, or pieces marked special
        bool adds_bos = true;           ///< to plain documents
    };
    /// `path`: a .model file.
    SentencePieceTokenizer(const std::string& path, Options options);
    ~SentencePieceTokenizer() override;

    SplitText split(std::string_view text, std::span<const Span> plain) const override;
    void encode_between(std::string_view text, TextStart start, Spelled spelled, std::vector<int32_t>& ids,
                        TokenCache& cache) const override;
    std::string decode(const std::vector<int32_t>& ids, SpecialTokens special) const override;
    std::optional<int32_t> piece_id(std::string_view piece) const override;
    std::string piece(int32_t id) const override;
    int32_t vocab_size() const override;
    bool is_special(int32_t id) const override;
    const std::vector<int32_t>& document_prefix() const override { return prefix_; }
    /// Replaces bos, eos, pad or unk by the ids that a folder's files name.
    void set_roles(const RoleTokens& roles);

  private:
    struct Model;
    void add_token(AddedToken token);

    std::unique_ptr<Model> model_;
    std::vector<std::unique_ptr<AddedToken>> tokens_;
    std::vector<const AddedToken*> token_by_id_;
    AddedTokens found_;  // all of tokens_
    std::vector<int32_t> prefix_;
    bool adds_bos_ = true;
};

}  // namespace colonnade
