#pragma once
// JSONL in: one JSON object per line becomes one Row, whatever convention it was written in. The conventions
// (`type` of a dataset; `auto` looks at the keys of the first row and says what it found):
//
//   messages           {"messages": [{"role", "content"}, ...]}
//   prompt_completion  {"prompt", "completion"}: two strings, or two message lists
//   alpaca             {"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], ...]}
//   sharegpt           {"conversations": [{"from", "value"}, ...], "system"?}
//   text               {"text"}
//   tokens             {"input_ids", "labels"?, "attention_mask"?}: a label of -100 is not learned
//
// Preferences (stages dpo and rm) have conventions of their own. An answer is a string, one message or a list of
// messages; "margin"? is a number that only pairs have.
//
//   preference         {"prompt"?, "chosen", "rejected"}. The prompt is a string or a message list; without one, chosen
//                      and rejected are whole texts or conversations, and the prompt is how they begin alike
//   messages           {"messages", "chosen", "rejected"}: the prompt as a chat
//   alpaca             {"instruction", "input"?, "system"?, "history"?, "chosen", "rejected"}: two strings
//   sharegpt           {"conversations", "system"?, "chosen", "rejected"}
//   ranked             {"prompt", "completions": [answer, ...]}: two or more, the best one first
//   tokens             {"prompt_input_ids"?, "chosen_input_ids", "rejected_input_ids", "chosen_labels"?,
//                      "rejected_labels"?}: the answers alone behind a prompt, else wholes
//
// `columns` renames keys: {ours: theirs}, those inside a message included. Other keys are ignored; null counts as
// absent.

#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace colonnade {

using Columns = std::map<std::string, std::string>;  ///< names of keys: ours to theirs

struct DatasetSpec {
    std::string path;
    std::string type = "auto";
    Columns columns = {};
};

struct Message {
    std::string role;  ///< system, user, assistant, tool
    std::string content;
    /// Per-message switch ("train": bool, or OpenAI's "weight": 0 | 1); overrides the role's default.
    std::optional<bool> train;
};

/// What the rows of a data set are: texts to learn from, or answers to compare.
enum class RowKind { texts, preferences };

/// Exactly one of the four groups is filled.
struct Row {
    std::vector<Message> messages;  ///< a chat; alpaca and message-list prompt/completion become one too
    int64_t prompt_messages = 0;    ///< prompt_completion with message lists: how many of them are prompt (not learned)
    std::optional<std::string> prompt, completion;  ///< plain strings; `text` rows have only a completion
    std::vector<int32_t> input_ids, labels;         ///< pre-tokenised; labels has the same length, -100: not learned
    /// A preference: each answer behind its prompt as a row of its own, the best one first.
    std::vector<Row> answers;
    bool whole_answers = false;  ///< they came without a prompt: it is what their tokens have in common
    float margin = 0;            ///< by how much the chosen answer is to score above the rejected one
    int64_t line = 0;            ///< 1-based line in its file
};

/// Streams the rows of one file. Blank lines are skipped. Everything wrong with a line is Exit::data with "path:line:
/// ...": invalid UTF-8 or JSON (depth at most 64, line at most 16 MiB, no duplicate keys), missing or mistyped keys
/// (found, expected), unknown roles.
class RowReader {
  public:
    /// Opens the file and looks at its first row. Exit::config for an unknown type or column; Exit::data for a file
    /// that is missing, holds no row, or whose first row fits no convention.
    explicit RowReader(DatasetSpec spec, RowKind kind = RowKind::texts);
    /// False at the end of the file.
    bool next(Row& row);
    /// The raw next line and its number, for callers that parse on several threads with parse().
    bool next_line(std::string& line, int64_t& number);
    Row parse(const std::string& line, int64_t number) const;
    /// The convention in use (detected where the spec said auto).
    const std::string& type() const { return type_; }
    /// Fraction of the file read so far, for progress.
    double progress() const;

  private:
    bool read_line(std::string& line);

    DatasetSpec spec_;
    RowKind kind_;
    std::string type_;
    std::ifstream file_;
    std::unique_ptr<char[]> buffer_;  ///< holds one line of the greatest length
    int64_t line_ = 0;
    int64_t bytes_read_ = 0, bytes_total_ = 0;
    std::optional<std::string> peeked_;
};

}  // namespace colonnade
