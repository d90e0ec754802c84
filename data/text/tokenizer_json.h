#pragma once
// Fields that several sections of a tokenizer.json have. Errors name the field, as "where: field: ...".

#include <memory>
#include <string>
#include <string_view>

#include "data/text/regex.h"
#include "engine/io/json.h"

namespace colonnade {

std::string json_kind(const Json& json, const std::string& where);  ///< its "type"
std::string json_text(const Json& json, const char* key, const std::string& where);
/// A text; empty if it is missing or null.
std::string json_text_or_nothing(const Json& json, const char* key, const std::string& where);
bool json_flag(const Json& json, const char* key, bool otherwise, const std::string& where);
size_t json_count(const Json& json, const char* key, const std::string& where);
/// The parts of a Sequence, under `key`. Throws for one nested deeper than 8 levels.
const Json& json_sequence(const Json& json, const char* key, int depth, const std::string& where);
/// Reads a "pattern" into `text`. Returns whether it is a Regex, not a String.
bool json_pattern(const Json& json, std::string& text, const std::string& where);

/// A "Metaspace", of a pre-tokenizer or a decoder. Old files have add_prefix_space and no prepend_scheme.
struct Metaspace {
    enum class Prepend { always, first, never };
    std::string replacement;  ///< one character
    Prepend prepend = Prepend::always;
};
Metaspace json_metaspace(const Json& json, const std::string& where);
/// Whether `text` is one character. Takes well-formed UTF-8.
bool is_one_character(std::string_view text);

/// A "Replace", of a normalizer or a decoder.
class Replacement {
  public:
    Replacement(const Json& json, const std::string& where);
    std::string apply(std::string_view text) const;

  private:
    std::string pattern_, content_;
    std::shared_ptr<const Regex> regex_;  // null: the pattern is text
};
/// `text` with every `pattern`, which is not empty, from left to right, replaced by `content`.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace colonnade
