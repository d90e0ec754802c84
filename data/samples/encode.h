#pragma once
// Encoder: turns a Row into a Sample by chat template, tokenizer, loss mask and length limits.
//
// A token is trained on (weight 1) if it belongs to the content of a trained message, or if it is an end token that
// train_on_eos selects. With train_on_prompt, the template's text around a trained message counts too. The first token
// of a sample has weight 0, because nothing predicts it. Adjacent texts are tokenised as one text, but tokens never
// cross the limits of the loss mask or of an assistant message, so that training and generation see the same tokens.
//
// A preference is encoded one answer at a time, each with its prompt in front, and then joined
// (data/samples/join_branches.h).

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "data/samples/row_note.h"
#include "data/samples/sample.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// Which end tokens are trained on: those of trained turns, of all turns, of the last turn, or none.
enum class TrainOnEos { turn, all, last, none };
/// How to treat rows longer than max_length; truncate keeps the start.
enum class ExcessLength { drop, truncate, error };

struct EncodeOptions {
    std::string chat_template = "chatml";  ///< plain, chatml, llama2, llama3, mistral, zephyr, gemma
    int64_t max_length = 2048;
    bool train_on_prompt = false;  ///< train on every message and its template; input_ids rows keep their labels
    std::set<std::string> roles_to_train = {"assistant"};
    TrainOnEos train_on_eos = TrainOnEos::turn;
    bool mask_history = false;  ///< train only on the last trained turn
    bool add_bos = true;        ///< add the tokenizer's BOS, if it has one, before plain prompts and texts
    bool add_eos = true;        ///< add an end token after plain completions and texts
    ExcessLength excess_length = ExcessLength::drop;
    int64_t vocab_size = 0;  ///< upper limit of token ids; 0: the tokenizer's size
    // Preferences only.
    int64_t sample_length = 0;  ///< maximum tokens of the prompt and all answers together; 0: no limit
    int64_t max_answers = 0;    ///< maximum answers of a row; 0: no limit
};

/// Tokens of a text, or of a prompt with one of its answers, before the length limits apply.
struct TokenDraft {
    std::vector<int32_t> tokens{};
    std::vector<float> weights{};  ///< loss mask: 0 or 1 for each token
    RowNotes notes{};
    WordCache* words = nullptr;  ///< speeds up tokenisation; may be null

    void append(int32_t id, bool trained) {
        tokens.push_back(id);
        weights.push_back(trained ? 1.0f : 0.0f);
    }
};

/// What a row became.
struct Encoded {
    Sample sample;            ///< empty if the row is dropped
    int64_t full_length = 0;  ///< tokens before truncation; of a preference, of its longest prompt with an answer
    RowNotes notes;
};

class Encoder {
  public:
    /// With a null `tokenizer`, only rows of input_ids can be encoded; others throw Exit::config.
    Encoder(std::shared_ptr<const Tokenizer> tokenizer, EncodeOptions options);
    /// Thread-safe. Throws Exit::data with "where: ..." (`where` is "path:line") for rows that cannot be rendered or
    /// have bad ids, and for rows that are too long with ExcessLength::error. `words` is a cache of the calling thread.
    Encoded encode(const Row& row, const std::string& where, WordCache* words = nullptr) const;
    /// Encodes a chat up to the start of the assistant's answer, for generation. Starts with BOS if the template does.
    std::vector<int32_t> encode_prompt(const std::vector<Message>& messages) const;
    /// Token ids that end an assistant turn with this template, including the tokenizer's EOS if it has one.
    std::vector<int32_t> stop_ids() const;
    /// Markers of the template for which the tokenizer has no piece. They are tokenised as ordinary text.
    const std::vector<std::string>& spelled_out() const { return spelled_out_; }
    const EncodeOptions& options() const { return options_; }
    /// Null if the encoder accepts only rows of input_ids.
    const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }

  private:
    TokenDraft draft(const Row& row, const std::string& where, WordCache* words) const;
    TokenDraft draft_plain(const Row& row, WordCache* words) const;
    TokenDraft draft_tokens(const Row& row, const std::string& where) const;
    void append_text(TokenDraft& draft, const std::string& text, bool dummy_prefix, bool trained) const;

    // encode_chat.cpp
    void find_markers();
    std::optional<int32_t> special_id(const Segment& segment) const;
    std::vector<bool> trained_messages(const Row& row) const;
    bool trains_on(const Segment& segment, bool trained_message, bool last_end) const;
    TokenDraft draft_chat(const Row& row, const std::string& where, WordCache* words) const;
    void append_chat(TokenDraft& draft, const std::vector<Message>& messages, const std::vector<Segment>& segments,
                     const std::vector<bool>& trained) const;

    // encode_preference.cpp
    Encoded encode_preference(const Row& row, const std::string& where, WordCache* words) const;
    bool is_empty_answer(const Sample& sample, size_t branch) const;

    std::shared_ptr<const Tokenizer> tokenizer_;
    EncodeOptions options_;
    std::optional<int32_t> bos_, eos_;
    std::vector<int32_t> marker_ids_;
    std::optional<int32_t> end_marker_;  ///< marker that ends an assistant turn
    std::vector<std::string> spelled_out_;
};

}  // namespace colonnade
