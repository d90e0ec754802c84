#include "data/text/normalizer.h"

#include <algorithm>

#include "data/text/byte_pair_model.h"
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

std::string spell_bytes(std::string_view text) {
    std::string out;
    out.reserve(2 * text.size());
    for (const char c : text) append_character(out, byte_character(static_cast<unsigned char>(c)));
    return out;
}

Normalizer::Normalizer(const Json& json, const std::string& where) {
    if (!json.is_null()) read(json, where + ": normalizer", 0);
}

void Normalizer::read(const Json& json, const std::string& where, int depth) {
    const std::string kind = json_kind(json, where);
    const auto add = [this](Kind k) -> Step& { return steps_.emplace_back(Step{k, {}, {}, {}}); };
    if (kind == "Sequence") {
        for (const Json& part : json_sequence(json, "normalizers", depth, where)) read(part, where, depth + 1);
    } else if (kind == "NFC") {
        add(Kind::form).form = NormalForm::nfc;
    } else if (kind == "NFD") {
        add(Kind::form).form = NormalForm::nfd;
    } else if (kind == "NFKC") {
        add(Kind::form).form = NormalForm::nfkc;
    } else if (kind == "NFKD") {
        add(Kind::form).form = NormalForm::nfkd;
    } else if (kind == "Replace") {
        Step& step = add(Kind::replace);
        if (json_pattern(json, step.pattern, where))
            fail(Exit::data, "{}: Replace: the Regex '{:.200}' is not supported", where, step.pattern);
        step.content = json_text(json, "content", where + ": Replace");
    } else if (kind == "Prepend") {
        add(Kind::prepend).content = json_text(json, "prepend", where + ": Prepend");
    } else if (kind == "Strip") {
        Step& step = add(Kind::strip);
        step.left = json_flag(json, "strip_left", false, where + ": Strip");
        step.right = json_flag(json, "strip_right", false, where + ": Strip");
    } else if (kind == "Lowercase") {
        add(Kind::lowercase);
    } else if (kind == "StripAccents") {
        add(Kind::strip_accents);
    } else if (kind == "ByteLevel") {
        add(Kind::byte_level);
    } else {
        fail(Exit::data, "{}: {:.100} is not supported", where, kind);
    }
}

bool Normalizer::spells_bytes() const {
    return std::any_of(steps_.begin(), steps_.end(), [](const Step& s) { return s.kind == Kind::byte_level; });
}

static std::string without_marks(std::string_view text) {
    std::string out;
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        const Character c = character_at(p);
        if (!(unicode_class(c.point) & unicode::mark)) out.append(p, c.bytes);
        p += c.bytes;
    }
    return out;
}

static std::string_view strip(std::string_view text, bool left, bool right) {
    while (left && !text.empty()) {
        const Character c = character_at(text.data());
        if (!(unicode_class(c.point) & unicode::space)) break;
        text.remove_prefix(c.bytes);
    }
    while (right && !text.empty()) {
        const Character c = character_before(text.data() + text.size());
        if (!(unicode_class(c.point) & unicode::space)) break;
        text.remove_suffix(c.bytes);
    }
    return text;
}

std::string Normalizer::apply(std::string_view given, TextStart start) const {
    std::string text(given);
    for (const Step& step : steps_) switch (step.kind) {
            case Kind::form:
                text = normalize(text, step.form);
                break;
            case Kind::replace:
                text = replace_all(text, step.pattern, step.content);
                break;
            case Kind::prepend:
                if (!text.empty() && start != TextStart::continues) text.insert(0, step.content);
                break;
            case Kind::strip:
                text = std::string(strip(text, step.left, step.right));
                break;
            case Kind::lowercase:
                text = lowercase(text);
                break;
            case Kind::strip_accents:
                text = without_marks(text);
                break;
            case Kind::byte_level:
                text = spell_bytes(text);
                break;
        }
    return text;
}

}  // namespace colonnade
