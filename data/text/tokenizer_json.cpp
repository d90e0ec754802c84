#include "data/text/tokenizer_json.h"

#include "data/text/unicode.h"
#include "engine/device/error.h"

namespace colonnade {

std::string json_kind(const Json& json, const std::string& where) {
    if (!json.is_object()) fail(Exit::data, "{}: expected an object, found {:.100}", where, json.dump());
    return json_text(json, "type", where);
}

std::string json_text(const Json& json, const char* key, const std::string& where) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_string()) fail(Exit::data, "{}: {}: expected a text", where, key);
    return found->get<std::string>();
}

std::string json_text_or_nothing(const Json& json, const char* key, const std::string& where) {
    const auto found = json.find(key);
    return found == json.end() || found->is_null() ? std::string() : json_text(json, key, where);
}

bool json_flag(const Json& json, const char* key, bool otherwise, const std::string& where) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) return otherwise;
    if (!found->is_boolean()) fail(Exit::data, "{}: {}: expected true or false", where, key);
    return found->get<bool>();
}

const Json& json_sequence(const Json& json, const char* key, int depth, const std::string& where) {
    if (depth > 8) fail(Exit::data, "{}: Sequence: nested deeper than 8 levels", where);
    const auto found = json.find(key);
    if (found == json.end() || !found->is_array()) fail(Exit::data, "{}: Sequence: {}: expected an array", where, key);
    return *found;
}

bool json_pattern(const Json& json, std::string& text, const std::string& where) {
    const auto found = json.find("pattern");
    if (found == json.end() || !found->is_object() || found->size() != 1 ||
        !(found->contains("String") || found->contains("Regex")))
        fail(Exit::data, "{}: pattern: expected {{\"String\": ...}} or {{\"Regex\": ...}}", where);
    const bool regex = found->contains("Regex");
    text = json_text(*found, regex ? "Regex" : "String", where + ": pattern");
    return regex;
}

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
    std::string out;
    out.reserve(text.size() + text.size() / 2);
    for (size_t at = 0;;) {
        const size_t found = pattern.size() == 1 ? text.find(pattern[0], at) : text.find(pattern, at);
        out += text.substr(at, found - at);
        if (found == text.npos) return out;
        out += content;
        check_text_size(out.size());
        at = found + pattern.size();
    }
}

size_t json_count(const Json& json, const char* key, const std::string& where) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_unsigned())
        fail(Exit::data, "{}: {}: expected a whole number from 0 on", where, key);
    return found->get<size_t>();
}

Metaspace json_metaspace(const Json& json, const std::string& where) {
    Metaspace result;
    result.replacement = json.contains("replacement") ? json_text(json, "replacement", where) : "\xE2\x96\x81";
    if (!is_one_character(result.replacement)) fail(Exit::data, "{}: replacement: expected one character", where);
    const bool prefix = json_flag(json, "add_prefix_space", true, where);
    const std::string scheme =
        json.contains("prepend_scheme") ? json_text(json, "prepend_scheme", where) : (prefix ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
        fail(Exit::data, "{}: prepend_scheme '{:.100}' is unknown", where, scheme);
    if (!prefix && scheme != "never")
        fail(Exit::data, "{}: add_prefix_space false contradicts prepend_scheme '{}'", where, scheme);
    using Prepend = Metaspace::Prepend;
    result.prepend = scheme == "always" ? Prepend::always : scheme == "first" ? Prepend::first : Prepend::never;
    return result;
}

bool is_one_character(std::string_view text) {
    return !text.empty() && character_at(text.data()).bytes == text.size();
}

/// An empty text matches between all characters, as an empty regular expression does.
Replacement::Replacement(const Json& json, const std::string& where) {
    if (json_pattern(json, pattern_, where) || pattern_.empty())
        regex_ = std::make_shared<const Regex>(pattern_, where);
    content_ = json_text(json, "content", where);
}

std::string Replacement::apply(std::string_view text) const {
    return regex_ ? regex_->replace(text, content_) : replace_all(text, pattern_, content_);
}

}  // namespace colonnade
