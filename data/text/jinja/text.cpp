#include "data/text/jinja/text.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <cstring>

namespace colonnade::jinja {

Mark Text::mark_at(size_t byte) const {
    const auto run = std::upper_bound(runs_.begin(), runs_.end(), byte,
                                      [](size_t at, const Run& candidate) { return at < candidate.end; });
    if (run != runs_.end()) return run->mark;
    return runs_.empty() ? Mark{} : runs_.back().mark;
}

void Text::append(std::string_view bytes, Mark mark) {
    if (bytes.empty()) return;
    bytes_.append(bytes);
    if (!runs_.empty() && runs_.back().mark == mark)
        runs_.back().end = bytes_.size();
    else
        runs_.push_back({bytes_.size(), mark});
}

void Text::append_part(const Text& other, size_t begin, size_t end) {
    auto run = std::upper_bound(other.runs_.begin(), other.runs_.end(), begin,
                                [](size_t at, const Run& candidate) { return at < candidate.end; });
    for (size_t at = begin; at < end; ++run) {
        const size_t stop = std::min(run->end, end);
        append(std::string_view(other.bytes_).substr(at, stop - at), run->mark);
        at = stop;
    }
}

Text Text::part(size_t begin, size_t end) const {
    Text result;
    if (begin < end) result.append_part(*this, begin, end);
    return result;
}

void Text::set_generation(uint32_t generation) {
    for (Run& run : runs_)
        if (run.mark.generation == 0) run.mark.generation = generation;
}

size_t character_length(std::string_view text, size_t at) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const size_t wanted = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
    if (at + wanted > text.size()) return 1;
    for (size_t i = 1; i < wanted; ++i)
        if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return 1;
    return wanted;
}

char32_t character_at(std::string_view text, size_t at) {
    const size_t length = character_length(text, at);
    const auto lead = static_cast<unsigned char>(text[at]);
    if (length == 1) return lead;
    char32_t character = lead & (0xFF >> (length + 1));
    for (size_t i = 1; i < length; ++i) character = character << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3F);
    return character;
}

size_t count_characters(std::string_view text) {
    size_t count = 0;
    for (size_t at = 0; at < text.size(); at += character_length(text, at)) ++count;
    return count;
}

size_t byte_of_character(std::string_view text, size_t character) {
    size_t at = 0;
    for (; character > 0 && at < text.size(); --character) at += character_length(text, at);
    return at;
}

size_t find_text(std::string_view text, std::string_view part, size_t from) {
    if (from > text.size()) return std::string_view::npos;
    const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
    if (found == nullptr) return std::string_view::npos;
    return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

bool is_python_space(char32_t c) {
    return (c >= 0x9 && c <= 0xD) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_python_printable(char32_t character) {
    if (character == ' ') return true;
    const uint32_t hidden = U_GC_C_MASK | U_GC_Z_MASK;
    return (U_GET_GC_MASK(static_cast<UChar32>(character)) & hidden) == 0;
}

std::string title_case(std::string_view text) {
    std::string result;
    icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())})
        .toTitle(nullptr, icu::Locale::getRoot())
        .toUTF8String(result);
    return result;
}

std::string upper_case(std::string_view text) {
    std::string result;
    icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())})
        .toUpper(icu::Locale::getRoot())
        .toUTF8String(result);
    return result;
}

std::string lower_case(std::string_view text) {
    std::string result;
    icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())})
        .toLower(icu::Locale::getRoot())
        .toUTF8String(result);
    return result;
}

namespace {

/// Characters to trim: white space, or these.
class TrimSet {
  public:
    explicit TrimSet(std::string_view characters) {
        for (size_t i = 0; i < characters.size(); i += character_length(characters, i))
            points_ += character_at(characters, i);
        std::sort(points_.begin(), points_.end());
    }
    bool contains(char32_t point) const {
        return points_.empty() ? is_python_space(point) : std::binary_search(points_.begin(), points_.end(), point);
    }

  private:
    std::u32string points_;
};

size_t character_before(std::string_view text, size_t at) {
    for (size_t back = std::min<size_t>(4, at); back > 1; --back)
        if (character_length(text, at - back) == back) return at - back;
    return at - 1;
}

}  // namespace

Trimmed trimmed(std::string_view text, std::string_view characters, Side side) {
    const TrimSet set(characters);
    Trimmed kept{0, text.size()};
    if (side != Side::right)
        while (kept.begin < kept.end && set.contains(character_at(text, kept.begin)))
            kept.begin += character_length(text, kept.begin);
    if (side != Side::left) {
        while (kept.begin < kept.end) {
            const size_t at = character_before(text, kept.end);
            if (at < kept.begin || !set.contains(character_at(text, at))) break;
            kept.end = at;
        }
    }
    return kept;
}

}  // namespace colonnade::jinja
