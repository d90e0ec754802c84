#pragma once
// JsonKeys: the keys of one JSON object, read with type and range. Every error is Exit::data and names the place of the
// object, the key, what was expected and what was found:
//
//     model/config.json: key 'hidden_size' should be an integer >= 1, found "32"
//
// A key that is null counts as absent: transformers and PEFT write null for "not set".

#include <limits>
#include <optional>
#include <string>

#include "engine/io/json.h"

namespace colonnade {

/// Numbers from `low` on and below `below`.
struct JsonRange {
    double low = -std::numeric_limits<double>::infinity(), below = std::numeric_limits<double>::infinity();
    bool holds(double value) const { return value >= low && value < below; }
    /// " >= 0 and < 1"; empty without bounds.
    std::string text() const;
};

class JsonKeys {
  public:
    /// `json` must outlive the reader. `where` begins every message: a path, "path: rope_scaling". Throws if `json` is
    /// not an object.
    JsonKeys(const Json& json, std::string where);

    const std::string& where() const { return where_; }
    /// Null if the key is absent or null.
    const Json* find(const std::string& key) const;
    /// True if the key exists and its value is null.
    bool is_null(const std::string& key) const;

    // The value of a key, or `otherwise` if the key is absent. Without `otherwise` the key is required.
    int64_t integer(const std::string& key, std::optional<int64_t> otherwise = {}, const JsonRange& range = {}) const;
    double number(const std::string& key, std::optional<double> otherwise = {}, const JsonRange& range = {}) const;
    bool boolean(const std::string& key, std::optional<bool> otherwise = {}) const;
    std::string text(const std::string& key, const std::optional<std::string>& otherwise = {}) const;

    /// Throws the message above about a key; `expected` completes "should be".
    [[noreturn]] void refuse(const std::string& key, const std::string& expected) const;

  private:
    template <typename T>
    T value(const std::string& key, const std::optional<T>& otherwise, const std::string& expected,
            bool (*fits)(const Json&)) const;

    const Json& json_;
    std::string where_;
};

}  // namespace colonnade
