#pragma once
// RowReader: reads the rows of a data set, JSON objects in any of the formats below, from one or many files of any form
// (data/rows/files/row_source.h: JSON lines, JSON, Parquet; data_files.h: folders, globs, splits). `type` of a data set
// names the format; with `auto` the keys of the first rows decide. docs/data.md shows an example of each and what is
// learned from it.
//
//   messages           {"messages": [{"role", "content", ...}, ...], "system"?}
//   sharegpt           {"conversations": [{"from", "value", ...}, ...], "system"?}
//   alpaca             {"instruction", "input" or "context"?, "output", "system"?, "history"?}; history is a list of
//                      [question, answer]
//   prompt_completion  {"prompt", "completion"}: two strings, or two message lists
//   text               {"text"}
//   scored             {"prompt", "completions": [answer, ...], "scores": [number, ...]}: `keep` says which are learned
//   tokens             {"input_ids", "labels"?, "token_weights"?, "attention_mask"?, loss masks?}: a label of -100, or
//                      a loss mask or weight of 0, excludes the token from the loss
//
// Preferences (stages dpo and rm) have formats of their own. An answer is a string, one message or a list of messages.
// "margin"? is a number; rankings have none.
//
//   preference         {"prompt"?, "chosen", "rejected"}. The prompt is a string or a message list. Without a prompt,
//                      chosen and rejected are whole texts or conversations, and their common beginning is the prompt
//   messages           {"messages", "chosen", "rejected"}: the prompt as a chat
//   alpaca             {"instruction", "input" or "context"?, "system"?, "history"?, "chosen", "rejected"}: strings
//   sharegpt           {"conversations", "system"?, "chosen", "rejected"}
//   ranked             {"prompt", "completions": [answer, ...], "pairs"?}: two or more, the best one first, and each is
//                      compared with the later ones; or only the "pairs", [better, worse] or {"better", "worse",
//                      "margin"?, "weight"?} with their numbers
//   turns, steps       answers of several turns of a conversation, the next step of an answer: data/rows/turn_rows.h
//   tokens             {"prompt_input_ids"?, "chosen_input_ids", "rejected_input_ids"}, each of the two with labels and
//                      masks as above. The answers stand alone, or behind the prompt; without a prompt key, prompt and
//                      answer are one list
//
// Answers that a model wrote, each a sample of its own (stage grpo). A prompt is a string or a message list, an answer a
// string, a message or a list of messages. A reward is a number, null for none, or a list or an object of those of
// several functions. Answers of a data set with an equal "group"?, or else with an equal prompt, are a group.
//
//   rollouts           {"prompt", "completions": [answer, ...], "rewards" or "advantages": [...], "truncated"?: [...]}
//   prompt_completion  {"prompt", "completion", "reward" or "advantage", "truncated"?}
//   prompt_tokens      {"prompt_ids", "completion_ids", "completion_mask"?, "reward" or "advantage", log-probabilities?}
//   tokens             {"input_ids", "completion_mask" or "response_length", "reward" or "advantage", ...}
//
// Answers that are labelled as good or bad (stage kto), each a sample of its own:
//
//   prompt_completion  {"prompt", "completion", "label": true or false}
//   messages           {"messages", "label"}: the last message is the answer
//   sharegpt           {"conversations", "label"}
//   alpaca             {"instruction", "output", "label", ...}
//   prompt_tokens      {"prompt_ids", "completion_ids", "label", ...}
//
// Texts with what a teacher says about the tokens that are learned (stage distill; data/rows/teacher_keys.h):
//
//   tokens             {"input_ids", "teacher_ids", "teacher_log_probs", labels or loss masks?}
//   prompt_tokens      {"prompt_ids", "completion_ids", "teacher_ids", "teacher_log_probs", masks?}
//   messages           {"messages", "logprobs"}: the last message is what is learned
//   prompt_completion  {"prompt", "completion", "logprobs"}
//
// "weight"? of a row multiplies what is learned of it; of a preference it is that of its pairs. "weight"? of a message
// says how much of it is learned, and "token_weights"? of input_ids how much of each token.
//
// Chats take variables of the chat template beside them: tools, documents, enable_thinking, chat_template_kwargs, ...
// `columns` renames keys, {our name: the file's name}, those inside a message included; usual other spellings
// ({"question", "answer"}) are found without it (data/rows/detection.cpp). Null counts as absent. A key that is not
// used is harmless (an id, a score), or counted in Row::unused, or an error if it may say what is learned
// (data/rows/unused_keys.h).

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/rows/answer_score.h"
#include "data/rows/files/data_files.h"
#include "data/rows/files/row_source.h"
#include "engine/io/json.h"

namespace colonnade {

using Columns = std::map<std::string, std::string>;  ///< our name of a key: the file's name

struct DatasetSpec {
    std::string path = {};  ///< a file, a folder or a glob
    std::string type = "auto";
    Columns columns = {};
    std::set<std::string> ignore_columns = {};  ///< keys of the file that are read as if they were not there
    std::string split = {};                     ///< data/rows/files/data_files.h; empty: all rows
    int64_t max_samples = 0;                    ///< only the first rows of the split, of all files end to end; 0: all
    /// Of its samples, after they are tokenised: 2 takes each twice, 0.5 a fixed half (train/run/weigh_store.h).
    double weight = 1;
    std::string chat_template = {};  ///< empty: that of the config
    std::string keep = {};           ///< which answers of `scored` rows: data/rows/kept_answers.h
};
/// The files of a data set. Throws Exit::config for a split of no known form, and what find_data_files() throws.
DataFiles data_files(const DatasetSpec& spec);

struct Message {
    std::string role;     ///< system, user, assistant, tool
    std::string content;  ///< "" beside tool calls without a text
    /// How much of this message is learned, 0 for nothing (weight, loss_weight, train, ...); overrides the role's
    /// default. Of a preference: 0 or 1.
    std::optional<float> weight = {};
    /// Further keys that a chat template reads, without null ones: tool_calls (OpenAI's form, arguments as an object if
    /// they are one), reasoning_content, name, ...; null: none.
    Json more = {};
};

/// What the rows of a data set hold: texts to train on, answers to compare, answers with a reward or an advantage each,
/// answers that are labelled as good or bad, or texts with what a teacher says about each token.
enum class RowKind { texts, preferences, scored, labelled, taught };

/// Two answers of a row, by number, of which the first should be preferred.
struct RowPair {
    int32_t better, worse;
    float margin = 0;
    float weight = 1;  ///< 0: nothing is learned of it

    bool operator==(const RowPair&) const = default;
};

/// One row. Exactly one of four groups is filled: messages, prompt and completion, input_ids and labels, answers
/// (none of them if all answers are left out).
struct Row {
    std::vector<Message> messages;                  ///< a chat; alpaca and prompt_completion of messages become chats
    Json variables = {};                            ///< of the chat template: tools, documents, ...; null: none
    int64_t prompt_messages = 0;                    ///< the first messages are a prompt and not trained on: how many
    std::optional<std::string> prompt, completion;  ///< plain strings; `text` rows have no prompt
    std::vector<int32_t> input_ids, labels;         ///< token ids; labels: same length, -100: not in the loss
    std::vector<float> token_weights;               ///< of each token id, 0 if its label is -100; empty: all 1
    float weight = 1;                               ///< multiplies what is learned; of a preference, of its pairs
    /// Answers: a row for each, with the prompt in front. Of a preference, the best answer first.
    std::vector<Row> answers;
    std::vector<RowPair> pairs;       ///< which of them are compared; empty: each with the later ones
    std::vector<std::string> unused;  ///< keys of the row that were not used, harmless ones apart
    bool whole_answers = false;       ///< answers without a prompt key: their common tokens are the prompt
    /// Preferences of several turns: the answers are to different prompts, those of a turn behind each other, the
    /// chosen one last; `pairs` says which are compared.
    bool multi_turn = false;
    /// The last message is a part of an answer: its first bytes, this many, are given and not learned, and the answer
    /// goes on behind it.
    std::optional<size_t> given;
    /// Of `answers` that are no preference; NaN: none. Those that `keep` takes are learned, each as a row of its own.
    std::vector<double> scores;
    int64_t left_out = 0;                ///< such answers that `keep` has not taken
    float margin = 0;                    ///< of all pairs: by how much the better answer should score above the other
    int64_t line = 0;                    ///< number in its file, from 1: of the line or the row
    std::optional<AnswerScore> score{};  ///< of each of the answers, unless they are compared
};

/// The text of a row, and its place: file i of the data set, line or row `number` in it.
struct RowText {
    std::string text;
    size_t file = 0;
    int64_t number = 0;
};

/// Streams the rows of a data set. A bad row is Exit::data with "path:line: ..." or "path: row N: ...": invalid UTF-8
/// or JSON (depth at most 64, row at most 16 MiB, no duplicate keys), missing or mistyped keys (found, expected),
/// unknown roles. NaN and Infinity, which Python writes, are read as numbers.
class RowReader {
  public:
    /// Opens the first file and detects the format. Throws Exit::config for an unknown type, column or keep; Exit::data
    /// if a file is missing, if there is no row, or if the first rows fit no format, or different ones.
    explicit RowReader(DatasetSpec spec, RowKind kind = RowKind::texts);
    /// Reads these files instead of looking for them.
    RowReader(DatasetSpec spec, RowKind kind, std::vector<std::string> files);
    /// Reads the next row; false at the end.
    bool next(Row& row);
    /// Reads the next row as text, for callers that parse() on several threads.
    bool next_text(RowText& row);
    Row parse(const RowText& row) const;
    /// "path:line" or "path: row N".
    std::string place(const RowText& row) const {
        return row_place(files_[row.file], numbering_[row.file], row.number);
    }
    Numbering numbering(size_t file) const { return numbering_[file]; }  ///< of a file that has been opened
    /// The format in use; detected if the spec says auto.
    const std::string& type() const { return type_; }
    /// Renamed keys that were found without `columns`: "instruction: question, output: answer".
    std::string found_columns() const;
    /// Share of the bytes of all files read so far, for progress.
    double progress() const;

  private:
    void choose_rows();
    void detect();
    bool read_text(RowText& row);
    bool read_any(RowText& row);
    double bytes_read() const;
    Json parse_object(const std::string& text, const std::string& where) const;

    DatasetSpec spec_;
    Columns columns_;  ///< those of spec_ and those found
    RowKind kind_;
    std::string type_;
    std::vector<std::string> files_;
    std::vector<Numbering> numbering_;
    std::vector<double> bytes_before_;  ///< of the files before each, and of all
    std::unique_ptr<RowSource> source_;
    size_t file_ = 0;                                 ///< that source_ reads, or reads next
    int64_t read_ = 0, begin_ = 0, end_ = INT64_MAX;  ///< rows: read, and which of them count
    struct PeekedRow {
        RowText row;
        double bytes_read;
    };
    std::deque<PeekedRow> peeked_;  ///< rows that only detection has read
};

}  // namespace colonnade
