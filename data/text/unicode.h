#pragma once
// Unicode as the `tokenizers` package sees it: classes of characters, normal forms, lower case. The tables are measured
// on the package by scripts/make_unicode_tables.py, because it mixes several versions of Unicode.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace colonnade {

/// Classes of a character, as bits. Patterns use Unicode 16; word_rust, numeric and punctuation belong to the
/// pre-tokenizers and added tokens, which have tables of their own.
namespace unicode {
enum Class : unsigned {
    upper = 1 << 0,           ///< \p{Lu} and \p{Lt}
    lower = 1 << 1,           ///< \p{Ll}
    other = 1 << 2,           ///< \p{Lm} and \p{Lo}
    mark = 1 << 3,            ///< \p{M}
    number = 1 << 4,          ///< \p{N}
    space = 1 << 5,           ///< \s
    punct = 1 << 6,           ///< \p{P}
    symbol = 1 << 7,          ///< \p{S}
    digit = 1 << 8,           ///< \d
    word = 1 << 9,            ///< \w in patterns
    word_rust = 1 << 10,      ///< \w of Whitespace and single_word
    numeric = 1 << 11,        ///< Digits
    punctuation = 1 << 12,    ///< Punctuation
    han = 1 << 13,            ///< \p{Han}
    not_nfc_inert = 1 << 14,  ///< NFC may change it or combine it with the character before
    letter = upper | lower | other,
};
}  // namespace unicode

extern const uint16_t unicode_pages[8704];
extern const uint16_t unicode_class_data[];

inline unsigned unicode_class(uint32_t point) {
    return unicode_class_data[unicode_pages[point >> 7] * 128u + (point & 127)];
}

// What normalizers drop, by tables older than those of the classes.
bool is_accent(uint32_t point);  ///< by StripAccents
/// By BertNormalizer: control characters and U+FFFD; and, behind NFD, accents.
bool is_bert_control(uint32_t point);
bool is_bert_accent(uint32_t point);

struct Character {
    uint32_t point;
    uint32_t bytes;
};
/// The character that begins at `p`, in well-formed UTF-8.
inline Character character_at(const char* p) {
    const auto byte = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
    const uint32_t c = byte(0);
    if (c < 0x80) return {c, 1};
    if (c < 0xE0) return {(c & 31) << 6 | (byte(1) & 63), 2};
    if (c < 0xF0) return {(c & 15) << 12 | (byte(1) & 63) << 6 | (byte(2) & 63), 3};
    return {(c & 7) << 18 | (byte(1) & 63) << 12 | (byte(2) & 63) << 6 | (byte(3) & 63), 4};
}
/// The character that ends just before `p`. There must be one.
inline Character character_before(const char* p) {
    do --p;
    while ((*p & 0xC0) == 0x80);
    return character_at(p);
}
void append_character(std::string& text, uint32_t point);

/// Number of leading bytes of `text` that are well-formed UTF-8.
size_t well_formed_prefix(std::string_view text);
/// `text` with U+FFFD for each maximal ill-formed part, as Python's errors="replace" gives it.
std::string replace_ill_formed(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// Normal form of well-formed UTF-8, by Unicode 9.
std::string normalize(std::string_view text, NormalForm form);
/// Lower case of each character, without context.
std::string lowercase(std::string_view text);

}  // namespace colonnade
