#pragma once
// RowFields: reads the keys of one JSON object under the user's column names. The row formats (data/rows/row_formats.h)
// are built from these readers. Every error is Exit::data with "path:line: ...", what was found and what was expected.

#include <fmt/format.h>

#include <optional>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "engine/io/json.h"

namespace colonnade {

/// A value for an error message: one line of at most 80 characters.
std::string shown(const Json& value);
/// A key of the file for a message: one line of at most 80 characters.
std::string shown_key(const std::string& key);
/// The keys of an object for an error message.
std::string found_keys(const Json& object);

/// Throws if a value that is used holds NaN or an infinity, at any depth.
void require_finite(const Json& value, const std::string& where);
/// A list or an object. Data sets with one type per column store them as a string of JSON, which is parsed.
Json parsed_container(const Json& value, const std::string& where);

/// How much is learned of a row, a message or a token: 0, or a number from 1e-9 to 1e9, so that products of two are far
/// from the limits of float32. Nothing for a value that is no weight.
std::optional<float> weight_from(const Json& value);
[[noreturn]] void refuse_weight(const Json& value, const std::string& where);

/// A JSON object and the user's names for its keys. Methods take our name of a key. It keeps a record of the keys that
/// were asked for, so that none is forgotten. Not thread-safe.
class RowFields {
  public:
    RowFields(const Json& object, const Columns& columns, std::string where);

    const std::string& where() const { return where_; }
    const Columns& columns() const { return columns_; }
    const Json& object() const { return object_; }
    /// The user's name for `key`.
    std::string name(const std::string& key) const;
    /// "path:line: key 'name'", for an error about a value.
    std::string place(const std::string& key) const { return fmt::format("{}: key '{}'", where_, name(key)); }

    /// Null if the key is missing or its value is null.
    const Json* find(const std::string& key) const;
    /// Like find; null too for an empty string, list or object.
    const Json* find_filled(const std::string& key) const;
    /// The readers below throw if the key is missing or null, or if the value has another type.
    const Json& at(const std::string& key) const;
    const Json& list(const std::string& key) const;
    const Json& filled_list(const std::string& key) const;
    std::string text(const std::string& key) const;
    std::string text_or_empty(const std::string& key) const { return find(key) ? text(key) : ""; }
    float weight(const std::string& key) const;
    [[noreturn]] void mistyped(const std::string& key, const char* expected) const;
    struct Entry {
        std::string key;  ///< the file's name
        const Json& value;
    };
    /// The keys that hold a value and that no reader asked for.
    std::vector<Entry> unread() const;

  private:
    const Json& object_;
    const Columns& columns_;
    std::string where_;
    mutable std::vector<const Json*> read_;  ///< values that were asked for
};

}  // namespace colonnade
