#pragma once
// Charsmap: the "precompiled_charsmap" of a tokenizer.json, the rules by which a SentencePiece model replaces characters.
// Format (little-endian): bytes of the trie as u32, the trie (a double array of u32 units, as Darts-clone writes it),
// then the replacements, each ended by NUL. Source: sentencepiece, src/normalizer.cc; Darts-clone, include/darts.h.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

class Charsmap {
  public:
    /// Throws Exit::data with "where: ..." if `base64` is damaged.
    Charsmap(const std::string& base64, const std::string& where);
    /// Replaces each grapheme cluster shorter than 6 bytes as a whole, if a rule begins it, otherwise each character.
    std::string apply(std::string_view text) const;

  private:
    std::optional<std::string_view> replacement(std::string_view text) const;  ///< by the shortest rule that begins it
    void append(std::string_view cluster, std::string& out) const;

    std::vector<uint32_t> trie_;
    std::string texts_;
};

}  // namespace colonnade
