#include "data/text/normalizer.h"

#include <algorithm>

#include "data/text/byte_pair_model.h"
#include "data/text/character_filters.h"
#include "data/text/split_pattern.h"
#include "engine/device/error.h"

namespace colonnade {

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
    const auto add = [this](Kind k) -> Step& {
        return steps_.emplace_back(Step{.kind = k, .form = {}, .content = {}, .replacement = {}, .charsmap = {}});
    };
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
        add(Kind::replace).replacement = std::make_shared<const Replacement>(json, where + ": Replace");
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
    } else if (kind == "Nmt") {
        add(Kind::nmt);
    } else if (kind == "BertNormalizer") {
        read_bert(json, where + ": BertNormalizer");
    } else if (kind == "Precompiled") {
        const std::string charsmap = json_text(json, "precompiled_charsmap", where + ": Precompiled");
        add(Kind::precompiled).charsmap = std::make_shared<const Charsmap>(charsmap, where + ": Precompiled");
    } else {
        fail(Exit::data, "{}: {:.100} is not supported", where, kind);
    }
}

void Normalizer::read_bert(const Json& json, const std::string& where) {
    const auto add = [this](Kind k) {
        steps_.push_back({.kind = k, .form = {}, .content = {}, .replacement = {}, .charsmap = {}});
    };
    const bool lowercase = json_flag(json, "lowercase", true, where);
    if (json_flag(json, "clean_text", true, where)) add(Kind::clean_text);
    if (json_flag(json, "handle_chinese_chars", true, where)) add(Kind::isolate_chinese);
    if (json_flag(json, "strip_accents", lowercase, where)) add(Kind::strip_nonspacing);
    if (lowercase) add(Kind::lowercase);
}

bool Normalizer::spells_bytes() const {
    return std::any_of(steps_.begin(), steps_.end(), [](const Step& s) { return s.kind == Kind::byte_level; });
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

std::string Normalizer::apply(const Step& step, std::string_view text, TextStart start) {
    switch (step.kind) {
        case Kind::form:
            return normalize(text, step.form);
        case Kind::replace:
            return step.replacement->apply(text);
        case Kind::prepend:
            return (text.empty() || start == TextStart::continues ? "" : step.content) + std::string(text);
        case Kind::strip:
            return std::string(strip(text, step.left && start != TextStart::continues, step.right));
        case Kind::lowercase:
            return lowercase(text);
        case Kind::strip_accents:
            return strip_accents(text);
        case Kind::byte_level:
            return spell_bytes(text);
        case Kind::clean_text:
            return bert_clean_text(text);
        case Kind::isolate_chinese:
            return bert_isolate_chinese(text);
        case Kind::strip_nonspacing:
            return bert_strip_accents(text);
        case Kind::nmt:
            return nmt_clean_text(text);
        case Kind::precompiled:
            return step.charsmap->apply(text);
    }
    return {};
}

std::string Normalizer::apply(std::string_view given, TextStart start) const {
    std::string text(given);
    for (const Step& step : steps_) {
        text = apply(step, text, start);
        check_text_size(text.size());
    }
    return text;
}

}  // namespace colonnade
