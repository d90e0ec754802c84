#pragma once
// Normalizers of a tokenizer.json that drop or replace single characters: the steps of BertNormalizer, Nmt and
// StripAccents. All take well-formed UTF-8.

#include <string>
#include <string_view>

namespace colonnade {

/// Drops NUL, U+FFFD and control characters, and makes all white space a space.
std::string bert_clean_text(std::string_view text);
std::string bert_isolate_chinese(std::string_view text);  ///< a space on both sides of each Han character
std::string bert_strip_accents(std::string_view text);    ///< NFD without nonspacing marks
std::string strip_accents(std::string_view text);
/// Drops some control characters and makes some spaces, among them U+2581, a space.
std::string nmt_clean_text(std::string_view text);

}  // namespace colonnade
