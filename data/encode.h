#pragma once
// From a Row to a Sample: chat template, tokenizer, what is learned, what is too long.

#include <memory>
#include <set>
#include <string>

#include "data/rows.h"
#include "data/sample.h"
#include "data/tokenizer.h"

namespace colonnade {

enum class TrainOnEos { turn, all, last, none };   ///< end tokens learned: of learned turns (default), of all turns, of the last, never
enum class ExcessLength { drop, truncate, error }; ///< rows longer than max_length

struct EncodeOptions {
    std::string chat_template = "chatml";     ///< plain, chatml, llama2, llama3, mistral, zephyr, gemma
    int64_t max_length = 2048;
    bool train_on_prompt = false;             ///< learn every token
    std::set<std::string> roles_to_train = {"assistant"};
    TrainOnEos train_on_eos = TrainOnEos::turn;
    bool mask_history = false;                ///< learn only the last learned turn
    bool add_eos = true;                      ///< end token after plain completions and text
    ExcessLength excess_length = ExcessLength::drop;
    int64_t vocab_size = 0;                   ///< token ids must be below (0: the tokenizer's size)
};

/// What happened to a row; everything but `kept` and `truncated` leaves no sample. Suspicions are only told.
struct Encoded {
    enum class Outcome { kept, truncated, dropped_too_long, dropped_nothing_learned } outcome = Outcome::kept;
    Sample sample;
    int64_t full_length = 0;        ///< tokens before truncation
    bool no_end_token = false;      ///< a learned answer that does not end in an end token
    bool double_bos = false;
};

class Encoder {
  public:
    /// `tokenizer` may be null: then only pre-tokenised rows can be encoded (others: Exit::config).
    Encoder(std::shared_ptr<const Tokenizer> tokenizer, EncodeOptions options);
    /// Thread-safe. Throws Exit::data with "where: ..." (`where` = "path:line") for rows that cannot be rendered or hold bad ids,
    /// and for too long rows under ExcessLength::error.
    Encoded encode(const Row& row, const std::string& where) const;
    /// The chat up to where the assistant speaks, for generation. Starts with BOS where the template has one.
    std::vector<int32_t> encode_prompt(const std::vector<Message>& messages) const;
    /// Ids that end an assistant turn under this template (eos always among them).
    std::vector<int32_t> stop_ids() const;
    const EncodeOptions& options() const { return options_; }

  private:
    std::shared_ptr<const Tokenizer> tokenizer_;
    EncodeOptions options_;
};

}  // namespace colonnade
