#include "data/text/unicode.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <vector>

namespace colonnade {

#include "data/text/unicode_tables.inc"

namespace {

constexpr uint32_t hangul_first = 0xAC00, hangul_count = 11172, lead_first = 0x1100, vowel_first = 0x1161,
                   tail_first = 0x11A7, vowel_count = 21, tail_count = 28, lead_count = 19;

struct Mapping {
    const uint32_t *begin, *end;
    const uint16_t* text_begins;
    const uint32_t* texts;
};
const Mapping canonical{std::begin(canonical_keys), std::end(canonical_keys), canonical_begins, canonical_texts};
const Mapping compatible{std::begin(compatible_keys), std::end(compatible_keys), compatible_begins, compatible_texts};
const Mapping to_lower{std::begin(lowercase_keys), std::end(lowercase_keys), lowercase_begins, lowercase_texts};

/// Calls add(point) for each character of what `point` maps to, or for `point` itself.
template <typename Add>
void map_character(const Mapping& mapping, uint32_t point, Add&& add) {
    const uint32_t* found = std::lower_bound(mapping.begin, mapping.end, point);
    if (found == mapping.end || *found != point) return add(point);
    const auto i = found - mapping.begin;
    for (int k = mapping.text_begins[i]; k < mapping.text_begins[i + 1]; ++k) add(mapping.texts[k]);
}

uint8_t combining_class(uint32_t point) {
    if (point < 0x300) return 0;
    const auto* found = std::lower_bound(std::begin(combining_keys), std::end(combining_keys), point);
    if (found == std::end(combining_keys) || *found != point) return 0;
    return combining_classes[found - std::begin(combining_keys)];
}

/// The character composed of two, or 0.
uint32_t compose_pair(uint32_t first, uint32_t second) {
    if (first - lead_first < lead_count && second - vowel_first < vowel_count)
        return hangul_first + ((first - lead_first) * vowel_count + (second - vowel_first)) * tail_count;
    if (first - hangul_first < hangul_count && (first - hangul_first) % tail_count == 0 && second > tail_first &&
        second < tail_first + tail_count)
        return first + (second - tail_first);
    const uint64_t key = uint64_t{first} << 32 | second;
    const auto* found = std::lower_bound(std::begin(composition_keys), std::end(composition_keys), key);
    if (found == std::end(composition_keys) || *found != key) return 0;
    return composition_results[found - std::begin(composition_keys)];
}

struct Mark {
    uint32_t point;
    uint8_t order;
};

/// Decomposes `text` and sorts each run of marks by combining class.
std::vector<Mark> decompose(std::string_view text, const Mapping& mapping) {
    std::vector<Mark> out;
    out.reserve(text.size());
    const auto add = [&out](uint32_t point) { out.push_back({point, combining_class(point)}); };
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        const Character c = character_at(p);
        p += c.bytes;
        if (const uint32_t i = c.point - hangul_first; i < hangul_count) {
            add(lead_first + i / (vowel_count * tail_count));
            add(vowel_first + i / tail_count % vowel_count);
            if (i % tail_count != 0) add(tail_first + i % tail_count);
        } else {
            map_character(mapping, c.point, add);
        }
    }
    for (auto begin = out.begin(); begin != out.end();) {
        const auto end = std::find_if(begin, out.end(), [](const Mark& m) { return m.order == 0; });
        std::stable_sort(begin, end, [](const Mark& a, const Mark& b) { return a.order < b.order; });
        begin = end == out.end() ? end : end + 1;
    }
    return out;
}

/// Composes in place, by the canonical composition algorithm.
void compose(std::vector<Mark>& text) {
    constexpr size_t none = ~size_t{0};
    size_t starter = none, kept = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        const Mark mark = text[i];
        // A mark of the same or a higher class between it and the starter blocks it.
        const bool adjacent = starter != none && kept == starter + 1;
        if (starter != none && (adjacent || (text[kept - 1].order != 0 && text[kept - 1].order < mark.order))) {
            if (const uint32_t composed = compose_pair(text[starter].point, mark.point)) {
                text[starter].point = composed;
                continue;
            }
        }
        if (mark.order == 0) starter = kept;
        text[kept++] = mark;
    }
    text.resize(kept);
}

/// Ranges are sorted pairs of a first and a last code point.
bool in_ranges(const uint32_t* begin, const uint32_t* end, uint32_t point) {
    const uint32_t* above = std::upper_bound(begin, end, point);
    return (above - begin) % 2 == 1 || (above != begin && above[-1] == point);
}

/// Length of the well-formed character at the front of `text`; 0: ill-formed, and `bad` is the length of that part.
size_t well_formed_character(std::string_view text, size_t& bad) {
    const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    bad = 1;
    if (first < 0x80) return 1;
    if (first < 0xC2 || first > 0xF4) return 0;
    const size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    for (; bad < size; ++bad) {
        if (bad >= text.size()) return 0;
        const unsigned next = byte(bad);
        if (next < (bad == 1 ? low : 0x80) || next > (bad == 1 ? high : 0xBF)) return 0;
    }
    return size;
}

bool is_ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

/// True only for text in NFC; false for such text, too, if it has marks.
bool is_nfc(std::string_view text) {
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        if (static_cast<unsigned char>(*p) < 0xCC) {  // below U+0300: NFC already
            ++p;
            continue;
        }
        const Character c = character_at(p);
        if (unicode_class(c.point) & unicode::not_nfc_inert) return false;
        p += c.bytes;
    }
    return true;
}

}  // namespace

bool is_accent(uint32_t point) {
    return in_ranges(std::begin(accents), std::end(accents), point);
}

bool is_bert_control(uint32_t point) {
    return in_ranges(std::begin(bert_controls), std::end(bert_controls), point);
}

bool is_bert_accent(uint32_t point) {
    return in_ranges(std::begin(bert_accents), std::end(bert_accents), point);
}

void append_character(std::string& text, uint32_t point) {
    const auto byte = [&text](uint32_t value) { text += static_cast<char>(value); };
    if (point < 0x80) return byte(point);
    if (point < 0x800) {
        byte(0xC0 | point >> 6);
    } else {
        if (point < 0x10000) {
            byte(0xE0 | point >> 12);
        } else {
            byte(0xF0 | point >> 18);
            byte(0x80 | (point >> 12 & 63));
        }
        byte(0x80 | (point >> 6 & 63));
    }
    byte(0x80 | (point & 63));
}

size_t well_formed_prefix(std::string_view text) {
    size_t at = 0, bad = 0;
    while (at < text.size()) {
        uint64_t eight = 0;
        if (at + sizeof(eight) <= text.size()) {
            std::memcpy(&eight, text.data() + at, sizeof(eight));
            if (!(eight & 0x8080808080808080u)) {  // ASCII
                at += sizeof(eight);
                continue;
            }
        }
        const size_t size = well_formed_character(text.substr(at), bad);
        if (size == 0) break;
        at += size;
    }
    return at;
}

std::string replace_ill_formed(std::string_view text) {
    std::string out;
    size_t bad = 0;
    while (!text.empty()) {
        const size_t good = well_formed_prefix(text);
        out += text.substr(0, good);
        text.remove_prefix(good);
        if (text.empty()) break;
        well_formed_character(text, bad);
        out += "\xEF\xBF\xBD";
        text.remove_prefix(bad);
    }
    return out;
}

std::string normalize(std::string_view text, NormalForm form) {
    if (form == NormalForm::nfc ? is_nfc(text) : is_ascii(text)) return std::string(text);
    const bool compatibility = form == NormalForm::nfkc || form == NormalForm::nfkd;
    std::vector<Mark> marks = decompose(text, compatibility ? compatible : canonical);
    if (form == NormalForm::nfc || form == NormalForm::nfkc) compose(marks);
    std::string out;
    out.reserve(text.size());
    for (const Mark& mark : marks) append_character(out, mark.point);
    return out;
}

std::string lowercase(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        const Character c = character_at(p);
        p += c.bytes;
        map_character(to_lower, c.point, [&out](uint32_t point) { append_character(out, point); });
    }
    return out;
}

}  // namespace colonnade
