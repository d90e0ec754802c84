#include "data/text/tokenizer_json.h"

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
    if (pattern.empty()) return std::string(text);
    std::string out;
    out.reserve(text.size() + text.size() / 2);
    for (size_t at = 0;;) {
        const size_t found = pattern.size() == 1 ? text.find(pattern[0], at) : text.find(pattern, at);
        out += text.substr(at, found - at);
        if (found == text.npos) return out;
        out += content;
        at = found + pattern.size();
    }
}

size_t json_count(const Json& json, const char* key, const std::string& where) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_unsigned()) fail(Exit::data, "{}: {}: expected a number", where, key);
    return found->get<size_t>();
}

Replacement::Replacement(const Json& json, const std::string& where) {
    if (json_pattern(json, pattern_, where)) regex_ = std::make_shared<const Regex>(pattern_, where);
    content_ = json_text(json, "content", where);
}

std::string Replacement::apply(std::string_view text) const {
    return regex_ ? regex_->replace(text, content_) : replace_all(text, pattern_, content_);
}

}  // namespace colonnade
