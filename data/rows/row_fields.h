#pragma once
// RowFields: reads the keys of one JSON object under the user's column names. The row formats (data/rows/row_formats.h)
// are built from these readers. Every error is Exit::data with "path:line: ...", what was found and what was expected.

#include <cstdint>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "engine/io/json.h"

namespace colonnade {

/// A value for an error message: one line of at most 80 characters.
std::string shown(const Json& value);
/// The keys of an object for an error message.
std::string found_keys(const Json& object);

/// A JSON object and the user's names for its keys. Methods take our name of a key.
class RowFields {
  public:
    RowFields(const Json& object, const Columns& columns, std::string where);

    const std::string& where() const { return where_; }
    const Columns& columns() const { return columns_; }
    const Json& object() const { return object_; }
    /// The user's name for `key`.
    std::string name(const std::string& key) const;

    /// Null if the key is missing or its value is null.
    const Json* find(const std::string& key) const;
    /// The readers below throw if the key is missing or null, or if the value has another type.
    const Json& at(const std::string& key) const;
    const Json& list(const std::string& key) const;
    const Json& filled_list(const std::string& key) const;
    std::string text(const std::string& key) const;
    std::string text_or_empty(const std::string& key) const { return find(key) ? text(key) : ""; }
    [[noreturn]] void mistyped(const std::string& key, const char* expected) const;

  private:
    const Json& object_;
    const Columns& columns_;
    std::string where_;
};

/// Keys of a message: {"role", "content"}, or ShareGPT's {"from", "value"} with its own role names.
enum class MessageStyle { chat, sharegpt };

/// Reads one message; `where` names its place in errors.
Message read_message(const Json& object, MessageStyle style, const Columns& columns, const std::string& where);
/// Reads a list of at least one message.
std::vector<Message> read_messages(const RowFields& row, const std::string& key, MessageStyle style);

/// Reads a ShareGPT row: the system message, then the conversation.
std::vector<Message> read_sharegpt_messages(const RowFields& row);
/// Reads all turns of an Alpaca row except the answer: system, history, then instruction and input in one message.
std::vector<Message> read_alpaca_prompt(const RowFields& row);

/// Reads a list of at least one integer in [0, 2^31); `also` is accepted too.
std::vector<int32_t> read_ids(const RowFields& row, const std::string& key, int32_t also, const char* expected);
/// Reads the labels of `ids` under `key`, one per id. Without that key, the labels are `ids`.
std::vector<int32_t> read_labels(const RowFields& row, const std::string& key, const std::string& ids_key,
                                 const std::vector<int32_t>& ids);
/// Throws unless the list of `key`, with `length` entries, is as long as that of `ids_key`.
void require_same_length(const RowFields& row, const std::string& key, size_t length, const std::string& ids_key,
                         size_t expected);

}  // namespace colonnade
