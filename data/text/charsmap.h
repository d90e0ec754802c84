#pragma once
// Charsmap: the "precompiled_charsmap" of a tokenizer.json: the rules by which a SentencePiece model replaces
// characters. Format (little-endian): the number of bytes of the trie as u32, the trie (a double array of u32 units, as
// Darts-clone writes it), then the replacements, each ended by NUL. A unit: bit 31 and bits 0 to 7 the label, bit 8 a
// leaf follows, bits 9 to 30 the offset of the children; byte c leads from the unit u at place p to place
// p ^ offset(u) ^ c. A leaf has bit 31 and the place of the replacement. Source: sentencepiece, src/normalizer.cc;
// Darts-clone, include/darts.h.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

/// Checks that every walk through the trie of `charsmap` stays inside and ends at a whole character of a replacement.
/// Throws Exit::data: "name is damaged: ...".
void check_charsmap(std::string_view charsmap, const std::string& name);

class Charsmap {
  public:
    /// Throws Exit::data with "where: precompiled_charsmap ..." if `base64` is damaged.
    Charsmap(const std::string& base64, const std::string& where);
    /// Replaces each grapheme cluster shorter than 6 bytes as a whole, if a rule begins it, otherwise each character.
    /// Throws Exit::data for a result of more than 256 MB.
    std::string apply(std::string_view text) const;

  private:
    std::optional<std::string_view> replacement(std::string_view text) const;  ///< by the shortest rule that begins it
    void append(std::string_view cluster, std::string& out) const;

    std::vector<uint32_t> trie_;
    std::string texts_;
};

}  // namespace colonnade
