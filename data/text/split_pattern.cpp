#include "data/text/split_pattern.h"

#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {

constexpr std::string_view gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
#define WHITE_SPACE R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define ENDS_LOWER R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
#define STARTS_UPPER R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
constexpr std::string_view llama3 =
    CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" WHITE_SPACE;
constexpr std::string_view qwen2 =
    CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" WHITE_SPACE;
constexpr std::string_view qwen3_5 =
    CONTRACTION R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" WHITE_SPACE;
constexpr std::string_view gpt4o =
    ENDS_LOWER CONTRACTION "?|" STARTS_UPPER CONTRACTION R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" WHITE_SPACE;
constexpr std::string_view tekken = ENDS_LOWER "|" STARTS_UPPER R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" WHITE_SPACE;
const std::string_view gpt2_pattern = gpt2, llama3_pattern = llama3, qwen2_pattern = qwen2, qwen3_5_pattern = qwen3_5,
                       gpt4o_pattern = gpt4o, tekken_pattern = tekken;

namespace {

using namespace unicode;

bool is_newline(char c) {
    return c == '\r' || c == '\n';
}
struct Classified {
    unsigned classes;
    uint32_t bytes;
};
/// Most text is ASCII: that way must be inline and short.
[[gnu::always_inline]] inline Classified classified(const char* p) {
    if (const auto byte = static_cast<unsigned char>(*p); byte < 0x80) return {unicode_class(byte), 1};
    const Character c = character_at(p);
    return {unicode_class(c.point), c.bytes};
}
/// End of the run of characters in `classes` that begins at `p`.
const char* run(const char* p, const char* end, unsigned classes) {
    while (p < end) {
        const Classified c = classified(p);
        if (!(c.classes & classes)) break;
        p += c.bytes;
    }
    return p;
}
const char* run_outside(const char* p, const char* end, unsigned classes) {
    while (p < end) {
        const Classified c = classified(p);
        if (c.classes & classes) break;
        p += c.bytes;
    }
    return p;
}

/// 's|'t|'re|'ve|'m|'ll|'d at the apostrophe `p`; null if there is none. Without regard to case, U+017F is an s.
template <bool IgnoreCase>
const char* contraction(const char* p, const char* end) {
    const auto lower_case = [](char c) { return IgnoreCase && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; };
    if (end - p < 2) return nullptr;
    const char first = lower_case(p[1]);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
    if (end - p < 3) return nullptr;
    if (IgnoreCase && p[1] == '\xC5' && p[2] == '\xBF') return p + 3;
    const char second = lower_case(p[2]);
    const bool found = ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
    return found ? p + 3 : nullptr;
}

/// \s+(?!\S)|\s+, with \s*[\r\n]+ before them if `Newlines`.
template <bool Newlines>
const char* white_space(const char* p, const char* end) {
    const char *at = p, *before_last = p, *behind_newline = nullptr;
    while (at < end) {
        const Classified c = classified(at);
        if (!(c.classes & space)) break;
        before_last = at;
        if (Newlines && is_newline(*at)) behind_newline = at + 1;
        at += c.bytes;
    }
    if (Newlines && behind_newline) return behind_newline;
    return at == end || before_last == p ? at : before_last;
}

/// \p{N}{1,Most} behind a first number that ends at `p`.
template <int Most>
const char* numbers(const char* p, const char* end) {
    for (int i = 1; i < Most && p < end; ++i) {
        const Classified c = classified(p);
        if (!(c.classes & number)) break;
        p += c.bytes;
    }
    return p;
}

struct Gpt2 {
    static const char* next(const char* p, const char* end) {
        if (*p == '\'')
            if (const char* found = contraction<false>(p, end)) return found;
        const char* at = *p == ' ' ? p + 1 : p;
        if (at < end) {
            const Classified c = classified(at);
            if (c.classes & letter) return run(at + c.bytes, end, letter);
            if (c.classes & number) return run(at + c.bytes, end, number);
            if (!(c.classes & space)) return run_outside(at + c.bytes, end, space | letter | number);
        }
        return white_space<false>(p, end);
    }
};

/// Llama 3 (three digits), Qwen 2 (one digit), Qwen 3.5 (one digit, marks are part of words).
template <int Digits, bool Marks>
struct Gpt4 {
    static const char* next(const char* p, const char* end) {
        constexpr unsigned in_word = Marks ? letter | mark : letter;
        if (*p == '\'')
            if (const char* found = contraction<true>(p, end)) return found;
        const Classified first = classified(p);
        if (first.classes & in_word) return run(p + first.bytes, end, in_word);
        if (first.classes & number) return numbers<Digits>(p + first.bytes, end);
        if (const char* at = p + first.bytes; !is_newline(*p) && at < end && (classified(at).classes & in_word))
            return run(at, end, in_word);
        const char* at = *p == ' ' ? p + 1 : p;
        if (at < end && !(classified(at).classes & (space | in_word | number))) {
            at = run_outside(at, end, space | in_word | number);
            while (at < end && is_newline(*at)) ++at;
            return at;
        }
        return white_space<true>(p, end);
    }
};

/// GPT-4o (three digits, contractions stay with the word) and tekken (one digit, none). A word is upper case letters,
/// then lower case ones; letters without case and marks are both.
template <int Digits, bool Contractions>
struct Gpt4o {
    static constexpr unsigned upper_part = upper | other | mark, lower_part = lower | other | mark;

    /// [upper_part]*[lower_part]+
    static const char* ends_lower(const char* p, const char* end) {
        const char* last = nullptr;
        for (; p < end;) {
            const Classified c = classified(p);
            if (!(c.classes & upper_part)) return c.classes & lower_part ? run(p, end, lower_part) : last;
            p += c.bytes;
            if (c.classes & lower_part) last = p;
        }
        return last;
    }
    /// [upper_part]+[lower_part]*
    static const char* starts_upper(const char* p, const char* end) {
        const char* at = run(p, end, upper_part);
        return at == p ? nullptr : run(at, end, lower_part);
    }
    static const char* word_end(const char* p, const char* end) {
        const Classified first = classified(p);
        const bool prefix = !(first.classes & (letter | number)) && !is_newline(*p);
        const bool in_word = first.classes & (letter | mark);
        const char* found = nullptr;
        if (prefix) found = ends_lower(p + first.bytes, end);
        if (!found && in_word) found = ends_lower(p, end);
        if (!found && prefix) found = starts_upper(p + first.bytes, end);
        if (!found && in_word) found = starts_upper(p, end);
        return found;
    }
    static const char* next(const char* p, const char* end) {
        if (const char* found = word_end(p, end)) {
            if (Contractions && found < end && *found == '\'')
                if (const char* longer = contraction<true>(found, end)) return longer;
            return found;
        }
        if (const Classified first = classified(p); first.classes & number)
            return numbers<Digits>(p + first.bytes, end);
        const char* at = *p == ' ' ? p + 1 : p;
        if (at < end && !(classified(at).classes & (space | letter | number))) {
            at = run_outside(at, end, space | letter | number);
            while (at < end && (is_newline(*at) || *at == '/')) ++at;
            return at;
        }
        return white_space<true>(p, end);
    }
};

/// \p{N}{1,3}: first step of DeepSeek V3.
struct UpToThreeNumbers {
    static const char* match(const char* p, const char* end) {
        const Classified first = classified(p);
        return first.classes & number ? numbers<3>(p + first.bytes, end) : nullptr;
    }
};

/// Runs of characters within two ranges: Han and Kana (DeepSeek V3), U+0800 to U+9FA5 and Hangul (DeepSeek Coder).
template <uint32_t First, uint32_t Last, uint32_t OtherFirst, uint32_t OtherLast>
struct CharacterRun {
    static const char* match(const char* p, const char* end) {
        const char* at = p;
        while (at < end) {
            const Character c = character_at(at);
            const bool inside =
                (c.point >= First && c.point <= Last) || (c.point >= OtherFirst && c.point <= OtherLast);
            if (!inside) break;
            at += c.bytes;
        }
        return at == p ? nullptr : at;
    }
};

/// Third step of DeepSeek V3. It matches neither numbers nor control characters.
struct DeepSeekV3 {
    static bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
    static bool is_ascii_punctuation(char c) {
        return c > ' ' && c < 0x7F && !is_ascii_letter(c) && (c < '0' || c > '9');
    }

    static const char* match(const char* p, const char* end) {
        if (is_ascii_punctuation(*p) && p + 1 < end && is_ascii_letter(p[1])) {
            for (++p; p < end && is_ascii_letter(*p);) ++p;
            return p;
        }
        const Classified first = classified(p);
        const char* at = p + first.bytes;
        if (!is_newline(*p) && !(first.classes & (letter | punct | symbol)) && at < end &&
            (classified(at).classes & (letter | mark)))
            return run(at, end, letter | mark);
        if (first.classes & (letter | mark)) return run(p, end, letter | mark);
        at = run(*p == ' ' ? p + 1 : p, end, punct | symbol);
        if (at > (*p == ' ' ? p + 1 : p)) {
            while (at < end && is_newline(*at)) ++at;
            return at;
        }
        return first.classes & space ? white_space<true>(p, end) : nullptr;
    }
};

/// \s?CLASS+ of DeepSeek Coder.
template <unsigned Classes>
struct SpacedRun {
    static const char* match(const char* p, const char* end) {
        const Classified first = classified(p);
        const char* begin = first.classes & space ? p + first.bytes : p;
        const char* at = run(begin, end, Classes);
        return at == begin ? nullptr : at;
    }
};

struct Newline {
    static const char* match(const char* p, const char*) { return is_newline(*p) ? p + 1 : nullptr; }
};

/// [0-9][0-9][0-9] of Falcon.
struct ThreeDigits {
    static const char* match(const char* p, const char* end) {
        const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
        return end - p >= 3 && is_digit(p[0]) && is_digit(p[1]) && is_digit(p[2]) ? p + 3 : nullptr;
    }
};

template <typename Pattern>
void search(const char* text, Piece piece, std::vector<Piece>& out) {
    const char *p = text + piece.begin, *end = text + piece.end;
    while (p < end) {
        const char* next = Pattern::match(p, end);
        if (next) out.push_back({static_cast<uint32_t>(p - text), static_cast<uint32_t>(next - text)});
        p = next ? next : p + character_at(p).bytes;
    }
}

template <typename Pattern>
void split(const char* text, Piece piece, std::vector<Piece>& out) {
    const char *p = text + piece.begin, *end = text + piece.end;
    while (p < end) {
        const char* next = Pattern::next(p, end);
        out.push_back({static_cast<uint32_t>(p - text), static_cast<uint32_t>(next - text)});
        p = next;
    }
}

struct Known {
    std::string_view pattern;
    KnownSplitter splitter;
};
const Known known_patterns[] = {
    {llama3, {split<Gpt4<3, false>>, true}},
    {qwen2, {split<Gpt4<1, false>>, true}},
    {qwen3_5, {split<Gpt4<1, true>>, true}},
    {gpt4o, {split<Gpt4o<3, true>>, true}},
    {tekken, {split<Gpt4o<1, false>>, true}},
    {R"(\p{N}{1,3})", {search<UpToThreeNumbers>}},
    {"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", {search<CharacterRun<0x4E00, 0x9FA5, 0x3040, 0x30FF>>}},
    {"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
     "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
     {search<DeepSeekV3>}},
    {"[\r\n]", {search<Newline>}},
    {R"(\s?\p{L}+)", {search<SpacedRun<letter>>}},
    {R"(\s?\p{P}+)", {search<SpacedRun<punct>>}},
    {"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", {search<CharacterRun<0x0800, 0x9FA5, 0xAC00, 0xD7FF>>}},
    {"[0-9][0-9][0-9]", {search<ThreeDigits>}},
    {gpt2, {split<Gpt2>, true}},
};

}  // namespace

void check_text_size(size_t bytes) {
    constexpr size_t most = limits::encoded_bytes;
    if (bytes > most) fail(Exit::data, "cannot encode {} bytes of text at once, expected at most {}", bytes, most);
}

KnownSplitter find_known_splitter(std::string_view pattern) {
    for (const Known& known : known_patterns)
        if (known.pattern == pattern) return known.splitter;
    return {};
}

}  // namespace colonnade
