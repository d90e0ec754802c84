#pragma once
// CharacterSet: sets of characters of a regular expression, with the `tokenizers` package's meaning of \p{L}, \s and so
// on, and the same sets as a character class of PCRE2, whose Unicode is older.

#include <bitset>
#include <optional>
#include <string>
#include <string_view>

namespace colonnade {

using CharacterSet = std::bitset<0x110000>;  ///< by code point

/// The characters that have one of these bits (data/text/unicode.h).
CharacterSet characters_of(unsigned classes);
/// \p{name}: a general category, by its short or long name, or a script. Nothing for a name that is neither and for
/// unassigned and private characters. Exact for L, Lu, Ll, Lt, M, N, Nd, P, S, Han and Word; a character that is newer
/// than PCRE2's Unicode (14 in 10.42) is missing in the others.
std::optional<CharacterSet> characters_of_property(std::string_view name);
/// Matches one character of `set`, in PCRE2's syntax.
std::string pcre2_class(const CharacterSet& set);

}  // namespace colonnade
