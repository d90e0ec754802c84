#include "data/text/character_filters.h"

#include <algorithm>
#include <iterator>

#include "data/text/unicode.h"

namespace colonnade {
namespace {

/// `change` appends to its second argument what takes the place of a character.
template <typename Change>
std::string changed(std::string_view text, Change&& change) {
    std::string out;
    out.reserve(text.size());
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        const Character c = character_at(p);
        change(c.point, std::string_view(p, c.bytes), out);
        p += c.bytes;
    }
    return out;
}

struct Range {
    uint32_t first, last;
};
template <size_t N>
bool contains(const Range (&ranges)[N], uint32_t point) {
    return std::any_of(std::begin(ranges), std::end(ranges),
                       [point](const Range& r) { return point >= r.first && point <= r.last; });
}

}  // namespace

std::string bert_clean_text(std::string_view text) {
    return changed(text, [](uint32_t point, std::string_view character, std::string& out) {
        if (is_bert_control(point)) return;  // U+0085, too, which is white space
        out += unicode_class(point) & unicode::space ? " " : character;
    });
}

std::string bert_isolate_chinese(std::string_view text) {
    static constexpr Range chinese[] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
                                        {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    return changed(text, [](uint32_t point, std::string_view character, std::string& out) {
        const bool isolated = point >= chinese[1].first && contains(chinese, point);
        if (isolated) out += ' ';
        out += character;
        if (isolated) out += ' ';
    });
}

std::string bert_strip_accents(std::string_view text) {
    return changed(normalize(text, NormalForm::nfd), [](uint32_t point, std::string_view character, std::string& out) {
        if (point < 0x300 || !is_bert_accent(point)) out += character;
    });
}

std::string strip_accents(std::string_view text) {
    return changed(text, [](uint32_t point, std::string_view character, std::string& out) {
        if (point < 0x300 || !is_accent(point)) out += character;
    });
}

std::string nmt_clean_text(std::string_view text) {
    static constexpr Range dropped[] = {{0x01, 0x08}, {0x0B, 0x0B}, {0x0E, 0x1F},
                                        {0x7F, 0x7F}, {0x8F, 0x8F}, {0x9F, 0x9F}};
    static constexpr Range spaces[] = {{0x09, 0x0A},     {0x0C, 0x0D},     {0x1680, 0x1680}, {0x200B, 0x200F},
                                       {0x2028, 0x2029}, {0x2581, 0x2581}, {0xFEFF, 0xFEFF}, {0xFFFD, 0xFFFD}};
    return changed(text, [](uint32_t point, std::string_view character, std::string& out) {
        if (contains(spaces, point))
            out += ' ';
        else if (!contains(dropped, point))
            out += character;
    });
}

}  // namespace colonnade
