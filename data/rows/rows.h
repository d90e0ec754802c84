#pragma once
// RowReader: reads JSONL, one JSON object per line, in any of the formats below. `type` of a data set names the format;
// with `auto` the keys of the first rows decide. docs/data.md shows an example of each and what is learned from it.
//
//   messages           {"messages": [{"role", "content", ...}, ...], "system"?}
//   sharegpt           {"conversations": [{"from", "value", ...}, ...], "system"?}
//   alpaca             {"instruction", "input" or "context"?, "output", "system"?, "history"?}; history is a list of
//                      [question, answer]
//   prompt_completion  {"prompt", "completion"}: two strings, or two message lists
//   text               {"text"}
//   tokens             {"input_ids", "labels"?, "attention_mask"?, loss masks?}: a label of -100, or a loss mask of 0,
//                      excludes the token from the loss
//
// Preferences (stages dpo and rm) have formats of their own. An answer is a string, one message or a list of messages.
// "margin"? is a number; rankings have none.
//
//   preference         {"prompt"?, "chosen", "rejected"}. The prompt is a string or a message list. Without a prompt,
//                      chosen and rejected are whole texts or conversations, and their common beginning is the prompt
//   messages           {"messages", "chosen", "rejected"}: the prompt as a chat
//   alpaca             {"instruction", "input" or "context"?, "system"?, "history"?, "chosen", "rejected"}: strings
//   sharegpt           {"conversations", "system"?, "chosen", "rejected"}
//   ranked             {"prompt", "completions": [answer, ...]}: two or more, the best one first
//   tokens             {"prompt_input_ids"?, "chosen_input_ids", "rejected_input_ids"}, each of the two with labels and
//                      masks as above. The answers stand alone, or behind the prompt; without a prompt key, prompt and
//                      answer are one list
//
// Chats take variables of the chat template beside them: tools, documents, enable_thinking, chat_template_kwargs, ...
// `columns` renames keys, {our name: the file's name}, those inside a message included; usual other spellings
// ({"question", "answer"}) are found without it (data/rows/detection.cpp). Null counts as absent. A key that is not
// used is harmless (an id, a score), or counted in Row::unused, or an error if it may say what is learned
// (data/rows/unused_keys.h).

#include <cstdint>
#include <deque>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/io/json.h"

namespace colonnade {

using Columns = std::map<std::string, std::string>;  ///< our name of a key: the file's name

struct DatasetSpec {
    std::string path;
    std::string type = "auto";
    Columns columns = {};
    std::set<std::string> ignore_columns = {};  ///< keys of the file that are read as if they were not there
};

struct Message {
    std::string role;     ///< system, user, assistant, tool
    std::string content;  ///< "" beside tool calls without a text
    /// Loss mask of this message (train, training, loss, weight: true, false, 1 or 0); overrides the role's default.
    std::optional<bool> train = {};
    /// Further keys that a chat template reads, without null ones: tool_calls (OpenAI's form, arguments as an object if
    /// they are one), reasoning_content, name, ...; null: none.
    Json more = {};
};

/// What the rows of a data set hold: texts to train on, or answers to compare.
enum class RowKind { texts, preferences };

/// One row. Exactly one of four groups is filled: messages, prompt and completion, input_ids and labels, answers.
struct Row {
    std::vector<Message> messages;                  ///< a chat; alpaca and prompt_completion of messages become chats
    Json variables = {};                            ///< of the chat template: tools, documents, ...; null: none
    int64_t prompt_messages = 0;                    ///< the first messages are a prompt and not trained on: how many
    std::optional<std::string> prompt, completion;  ///< plain strings; `text` rows have no prompt
    std::vector<int32_t> input_ids, labels;         ///< token ids; labels: same length, -100: not in the loss
    /// A preference: one row per answer, with the prompt in front; the best answer first.
    std::vector<Row> answers;
    std::vector<std::string> unused;  ///< keys of the row that were not used, harmless ones apart
    bool whole_answers = false;       ///< answers without a prompt key: their common tokens are the prompt
    float margin = 0;                 ///< by how much the chosen answer should score above the rejected one
    int64_t line = 0;                 ///< 1-based line number in its file
};

/// Streams the rows of one file and skips blank lines. A bad line is Exit::data with "path:line: ...": invalid UTF-8 or
/// JSON (depth at most 64, line at most 16 MiB, no duplicate keys), missing or mistyped keys (found, expected), unknown
/// roles. NaN and Infinity, which Python writes, are read as numbers.
class RowReader {
  public:
    /// Opens the file and detects the format. Throws Exit::config for an unknown type or column; Exit::data if the file
    /// is missing or has no row, or if its first rows fit no format, or different ones.
    explicit RowReader(DatasetSpec spec, RowKind kind = RowKind::texts);
    /// Reads the next row; false at the end of the file.
    bool next(Row& row);
    /// Reads the next line as text, with its number, for callers that parse() on several threads.
    bool next_line(std::string& line, int64_t& number);
    Row parse(const std::string& line, int64_t number) const;
    /// The format in use; detected if the spec says auto.
    const std::string& type() const { return type_; }
    /// Renamed keys that were found without `columns`: "instruction: question, output: answer".
    std::string found_columns() const;
    /// Fraction of the file read so far, for progress.
    double progress() const;

  private:
    bool read_line(std::string& line);
    void detect();
    Json parse_object(const std::string& line, const std::string& where) const;

    DatasetSpec spec_;
    Columns columns_;  ///< those of spec_ and those found
    RowKind kind_;
    std::string type_;
    std::ifstream file_;
    std::unique_ptr<char[]> buffer_;  ///< room for the longest line
    int64_t line_ = 0;
    int64_t bytes_read_ = 0, bytes_total_ = 0;
    struct PeekedLine {
        std::string text;
        int64_t number, bytes_read;
    };
    std::deque<PeekedLine> peeked_;  ///< lines that only detection has read
};

}  // namespace colonnade
