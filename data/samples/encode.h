#pragma once
// Encoder: turns a Row into a Sample by chat template, tokenizer, loss mask and length limits.
//
// A token is trained on if it belongs to the content of a trained message (an answer's reasoning and tool calls have
// switches of their own), or if it is an end token that train_on_eos selects. With train_on_prompt, the template's text
// around a trained message counts too. Its weight is the row's times the message's or the token's, each 1 unless the
// row says otherwise. The first token of a sample has weight 0, because nothing predicts it. A chat is tokenised as one
// text, but tokens never cross the limits of the loss mask or of an assistant's turn, so that training and generation
// see the same tokens.
//
// A preference is encoded one answer at a time, each with its prompt in front, and then joined
// (data/samples/join_branches.h). Answers with a score of their own are samples of their own (encode_answer.cpp).

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "data/samples/row_note.h"
#include "data/samples/sample.h"
#include "data/text/chat_renderer.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// Which end tokens are trained on: those of trained turns, of all turns, of the last turn, or none.
enum class TrainOnEos { turn, all, last, none };
/// How to treat rows longer than max_length; truncate keeps the start.
enum class ExcessLength { drop, truncate, error };
/// What an answer of a chat sees of the answers before it (data/samples/encode_history.cpp).
enum class History {
    automatic,    ///< per_turn for each row whose template rewrites earlier turns, as_rendered for the others
    per_turn,     ///< each learned turn behind the prompt that would ask for it: one sequence per turn
    as_rendered,  ///< the chat as rendered once: one sequence with every learned turn
};

struct EncodeOptions {
    std::shared_ptr<const ChatTemplate> chat_template{};  ///< null: the built-in chatml
    std::vector<int32_t> end_ids{};                       ///< further tokens that end a turn, of the model's files
    /// Whether a template may write markers, such as <|im_end|>, that the tokenizer does not know as one token.
    bool allow_spelled_out_markers = false;
    int64_t max_length = 2048;
    bool train_on_prompt = false;  ///< train on every message and its template; input_ids rows keep their labels
    std::set<std::string> roles_to_train = {"assistant"};
    bool train_on_thinking = true;                   ///< the reasoning of trained answers
    bool train_on_tool_calls = true;                 ///< the tool calls of trained answers
    Spelled special_tokens_in_text = Spelled::text;  ///< what a special token becomes that a row's text spells
    TrainOnEos train_on_eos = TrainOnEos::turn;
    bool mask_history = false;  ///< train only on the last trained turn
    History history = History::automatic;
    bool add_bos = true;  ///< begin plain prompts and texts as the tokenizer begins a document: many with BOS
    bool add_eos = true;  ///< add an end token after plain completions and texts
    ExcessLength excess_length = ExcessLength::drop;
    int64_t vocab_size = 0;  ///< upper limit of token ids; 0: the tokenizer's size
    // Preferences only.
    int64_t sample_length = 0;  ///< maximum tokens of the prompt and all answers together; 0: no limit
    RankedPairs ranked_pairs = RankedPairs::all;
    // Scored answers only.
    bool mask_truncated = false;  ///< nothing is learned of an answer that was cut off, by the sampler or by max_length
};

/// Tokens of a text, or of a prompt with one of its answers, before the length limits apply.
struct TokenDraft {
    std::vector<int32_t> tokens{};
    std::vector<float> weights{};  ///< of each token, 0 if it is not learned
    RowNotes notes{};

    bool is_trained() const {
        return std::ranges::any_of(weights, [](float weight) { return weight > 0; });
    }
    void append(int32_t id, float weight) {
        tokens.push_back(id);
        weights.push_back(weight);
    }
};

/// What a row became.
struct Encoded {
    Sample sample;  ///< empty if the row is dropped
    /// A chat turn by turn is several samples if its tree has more than max_length tokens, preferences of several turns
    /// if theirs has more than sample_length. A row with scores is one sample for each answer that is kept. A row of a
    /// batch may share what they have in common.
    std::vector<Sample> more{};
    int64_t answers = 0, kept = 0;  ///< of a row with scores: its answers, and those that are learned
    int64_t full_length = 0;        ///< tokens before truncation; of a preference, of its longest prompt with an answer
    RowNotes notes;
};

class Encoder {
  public:
    /// With a null `tokenizer`, only rows of input_ids can be encoded; others throw Exit::config.
    Encoder(std::shared_ptr<const Tokenizer> tokenizer, EncodeOptions options);
    /// Thread-safe. Throws Exit::data with "where: ..." (`where` is "path:line") for rows that cannot be rendered or
    /// have bad ids, and for rows that are too long with ExcessLength::error; Exit::config for a chat if the tokenizer
    /// lacks the template's markers. `cache`: of the calling thread and this tokenizer.
    Encoded encode(const Row& row, const std::string& where, TokenCache& cache) const;
    Encoded encode(const Row& row, const std::string& where) const;
    /// The sequences of a chat that is learned turn by turn, each within max_length: one per learned turn, in order;
    /// none if the row is dropped. Sets length and notes of `result`. Nothing if the row is one sequence. Throws
    /// Exit::data as encode() does, and with History::per_turn for a turn that the template writes otherwise than behind
    /// its generation prompt.
    std::optional<std::vector<TokenDraft>> encode_turns(const Row& row, const std::string& where, TokenCache& cache,
                                                        Encoded& result) const;
    /// An answer with a score, as one sample of one sequence. What is learned begins behind the generation prompt. An
    /// answer that is too long is cut at its end, log-probabilities with it. It may have no learned token, and counts
    /// still; its advantage is that of the row, or 0.
    Encoded encode_answer(const Row& answer, const std::string& where, TokenCache& cache) const;
    /// Encodes a chat up to the start of the assistant's answer, for generation. Starts with BOS if the template does.
    std::vector<int32_t> encode_prompt(const std::vector<Message>& messages) const;
    /// Encodes a text that generation continues, as training encodes a plain prompt.
    std::vector<int32_t> encode_plain_prompt(const std::string& text) const;
    /// Token ids that end an assistant's turn: the template's, the tokenizer's EOS, and those of the model's files.
    std::vector<int32_t> stop_ids() const;
    const EncodeOptions& options() const { return options_; }
    const ChatTemplate& chat_template() const { return *options_.chat_template; }
    /// Markers that the template writes as ordinary text, because the tokenizer does not know them.
    std::vector<std::string> spelled_out() const;
    /// Null if the encoder accepts only rows of input_ids.
    const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }

  private:
    Encoded encode_kept(const Row& row, const std::string& where, TokenCache& cache) const;
    TokenDraft draft(const Row& row, const std::string& where, TokenCache& cache) const;
    void finish(TokenDraft& draft, const Row& row) const;
    TokenDraft draft_plain(const Row& row, TokenCache& cache) const;
    TokenDraft draft_tokens(const Row& row, const std::string& where) const;
    void append_plain(TokenDraft& draft, const std::string& text, TextStart start, float weight,
                      TokenCache& cache) const;

    // encode_chat.cpp
    struct PartRule {
        float weight = 0;  ///< 0: not trained
        bool answer = false;
        bool learned = false;  ///< trained, and in this sequence of the row
        bool operator==(const PartRule&) const = default;
    };
    /// How far append_chat() is.
    struct ChatTokens {
        struct Cut {
            size_t byte, tokens;
        };
        TextStart start = TextStart::document;
        size_t bytes = 0;
        std::vector<Cut> cuts{};  ///< behind added tokens; the text behind them is tokenised as if it stood alone
    };
    std::vector<float> message_weights(const Row& row) const;
    std::vector<PartRule> part_rules(const RenderedChat& chat, const Row& row,
                                     const std::vector<float>& message_weights) const;
    float weight_of(const ChatPart& part, const std::vector<float>& message_weights, bool last_end) const;
    void check_markers(const std::string& where) const;
    TokenDraft draft_chat(const Row& row, const std::string& where, TokenCache& cache) const;
    void append_chat(TokenDraft& draft, const RenderedChat& chat, const std::vector<PartRule>& rules, ChatTokens& state,
                     TokenCache& cache) const;

    // encode_history.cpp
    class TurnByTurn;
    /// An answer of one turn as it is generated; one of several turns as the chat is rendered once.
    TokenDraft draft_answer(const Row& row, const std::string& where, TokenCache& cache) const;

    // encode_preference.cpp
    Encoded encode_preference(const Row& row, const std::string& where, TokenCache& cache) const;
    /// `tokens`: of a whole sequence.
    bool is_empty_answer(const std::vector<int32_t>& tokens, const std::vector<LearnedSpan>& learned) const;

    // encode_several_turns.cpp
    Encoded encode_several_turns(const Row& row, const std::string& where, TokenCache& cache) const;
    void divide(const Sample& tree, const std::string& where, RowNotes left_out, Encoded& result) const;

    std::shared_ptr<const Tokenizer> tokenizer_;
    EncodeOptions options_;
    std::shared_ptr<const ChatRenderer> renderer_;  ///< null without a tokenizer
    std::optional<int32_t> bos_;
    bool reads_forward_ = false;  ///< ChatTemplate::reads_forward()
};

}  // namespace colonnade
