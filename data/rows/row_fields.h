#pragma once
// Reading one JSON object of a data set under the user's column names: what the conventions of data/rows/row_formats.h are
// made of. Every error is Exit::data with "path:line: ...", what was found and what was expected.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/rows/rows.h"
#include "engine/io/json.h"

namespace colonnade {

/// A value as errors show it: one line, never long.
std::string shown(const Json& value);
std::string found_keys(const Json& object);

/// An object and how its keys are named.
class Fields {
  public:
    Fields(const Json& object, const Columns& columns, std::string where);

    const std::string& where() const { return where_; }
    const Columns& columns() const { return columns_; }
    const Json& object() const { return object_; }
    /// What the user calls `key`.
    std::string name(const std::string& key) const;

    /// Null where the key is missing or its value is null.
    const Json* find(const std::string& key) const;
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

/// How a message is written: {"role", "content"}, or ShareGPT's {"from", "value"} with its own names of roles.
enum class MessageStyle { chat, sharegpt };

/// The message that `object` is; `where` names its place.
Message read_message(const Json& object, MessageStyle style, const Columns& columns, const std::string& where);
/// The messages of a list that holds at least one.
std::vector<Message> read_messages(const Fields& row, const std::string& key, MessageStyle style);

/// Alpaca's turns but for the answer: system, history, then instruction and input as one.
std::vector<Message> read_alpaca_prompt(const Fields& row);

/// Integers in [0, 2^31), or `besides`; at least one.
std::vector<int32_t> read_ids(const Fields& row, const std::string& key, int32_t besides, const char* expected);
/// The labels of `ids`: those under `key`, as many, or `ids` themselves where there are none.
std::vector<int32_t> read_labels(const Fields& row, const std::string& key, const std::string& ids_key,
                                 const std::vector<int32_t>& ids);
/// Throws unless `key`, whose list has `length` entries, has as many as `ids_key`.
void require_same_length(const Fields& row, const std::string& key, size_t length, const std::string& ids_key,
                         size_t expected);

/// One convention.
struct RowFormat {
    std::string_view name;
    std::vector<std::string> telling;  ///< keys that a row of this convention must have
    std::vector<std::string> further;  ///< keys it may have, those inside a message included
    Row (*read)(const Fields&);
};
/// In the order in which detection tries them.
const std::vector<RowFormat>& text_formats();
const std::vector<RowFormat>& preference_formats();

}  // namespace colonnade
