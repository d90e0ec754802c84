#pragma once
// From a Row to a Sample: chat template, tokenizer, what is learned, what is too long.
//
// A token is learned (weight 1) when it belongs to the content of a learned message or is an end token that
// train_on_eos selects; with train_on_prompt, the template around a learned message counts too. Nothing predicts the
// first token of a sample: its weight is 0. Texts that meet are tokenised as one, but what is learned and what the
// assistant says always starts and ends on a token of its own, so that training sees the same tokens as generation.
//
// A preference is encoded answer by answer, each behind its prompt, then joined: data/samples/join_branches.h.

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "data/samples/sample.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// End tokens learned: those of learned turns, of all turns, of the last turn, none.
enum class TrainOnEos { turn, all, last, none };
/// What becomes of rows longer than max_length; truncate keeps the start.
enum class ExcessLength { drop, truncate, error };

struct EncodeOptions {
    std::string chat_template = "chatml";  ///< plain, chatml, llama2, llama3, mistral, zephyr, gemma
    int64_t max_length = 2048;
    bool train_on_prompt = false;  ///< learn every message and the template around it (labels of input_ids rows stand)
    std::set<std::string> roles_to_train = {"assistant"};
    TrainOnEos train_on_eos = TrainOnEos::turn;
    bool mask_history = false;  ///< learn only the last learned turn
    bool add_bos = true;        ///< BOS, where the tokenizer has one, before plain prompts and text
    bool add_eos = true;        ///< end token after plain completions and text
    ExcessLength excess_length = ExcessLength::drop;
    int64_t vocab_size = 0;  ///< token ids must be below (0: the tokenizer's size)
    // Of preferences only.
    int64_t sample_length = 0;  ///< prompt and all answers together, in tokens (0: any)
    int64_t max_answers = 0;    ///< answers of a row (0: any)
};

/// What happened to a row; everything but `kept` and `truncated` leaves no sample. Suspicions are only told.
struct Encoded {
    enum class Outcome {
        kept,
        truncated,
        dropped_too_long,
        dropped_nothing_learned,
        // Of preferences only.
        dropped_no_room,         ///< for all answers in one sample, or, truncated, for a learned token of each
        dropped_same_answers,    ///< two answers are the same tokens
        dropped_difference_cut,  ///< truncated, two answers became the same tokens
    } outcome = Outcome::kept;
    Sample sample;
    int64_t full_length = 0;      ///< tokens before truncation; of a preference, of its longest prompt and answer
    bool no_end_token = false;    ///< a learned answer that does not end in an end token
    bool double_bos = false;      ///< starts with two BOS, or with one and its spelling
    bool marker_in_text = false;  ///< a content spells one of the template's markers: it would end or open a turn
    bool empty_answer = false;    ///< of a preference: white space and end tokens is all that an answer teaches
    bool no_prompt = false;       ///< of a preference: its answers share no more than BOS, or no message
};

class Encoder {
  public:
    /// `tokenizer` may be null: then only pre-tokenised rows can be encoded (others: Exit::config).
    Encoder(std::shared_ptr<const Tokenizer> tokenizer, EncodeOptions options);
    /// Thread-safe. Throws Exit::data with "where: ..." (`where` = "path:line") for rows that cannot be rendered or
    /// hold bad ids, and for too long rows under ExcessLength::error. `words`: of this thread; saves time.
    Encoded encode(const Row& row, const std::string& where, WordCache* words = nullptr) const;
    /// The chat up to where the assistant speaks, for generation. Starts with BOS where the template has one.
    std::vector<int32_t> encode_prompt(const std::vector<Message>& messages) const;
    /// Ids that end an assistant turn under this template (eos among them where the tokenizer has one).
    std::vector<int32_t> stop_ids() const;
    /// Markers of the template that the tokenizer lacks: they are written as ordinary text. Worth telling the user.
    const std::vector<std::string>& spelled_out() const { return spelled_out_; }
    const EncodeOptions& options() const { return options_; }
    /// Null for pre-tokenised rows only.
    const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }

  private:
    struct Draft;
    void learn_markers();
    std::optional<int32_t> special_id(const Segment& segment) const;
    void append_text(Draft& draft, const std::string& text, bool dummy_prefix, bool learned) const;
    void append_chat(Draft& draft, const std::vector<Message>& messages, const std::vector<Segment>& segments,
                     const std::vector<bool>& learned) const;
    std::vector<bool> learned_messages(const Row& row) const;
    Draft draft_chat(const Row& row, const std::string& where, WordCache* words) const;
    Draft draft_plain(const Row& row, WordCache* words) const;
    Draft draft_tokens(const Row& row, const std::string& where) const;
    Draft draft(const Row& row, const std::string& where, WordCache* words) const;
    Encoded encode_preference(const Row& row, const std::string& where, WordCache* words) const;
    bool reads_empty(const Sample& sample, size_t branch) const;

    std::shared_ptr<const Tokenizer> tokenizer_;
    EncodeOptions options_;
    std::optional<int32_t> bos_, eos_;
    std::vector<int32_t> marker_ids_;
    std::optional<int32_t> end_marker_;  ///< ends an assistant turn
    std::vector<std::string> spelled_out_;
};

}  // namespace colonnade
