#pragma once
// BytePairModel: the BPE model of a tokenizer.json. Pieces of text become ids by merging the pair of lowest rank,
// leftmost first, until none is left.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/token_model.h"

namespace colonnade {

class BytePairModel final : public TokenModel {
  public:
    /// Alphabet of the text that encode() gets: raw bytes, whose pieces the vocabulary spells in byte characters, or
    /// the characters of the vocabulary itself.
    enum class Alphabet { bytes, characters };

    /// `json`: the "model" of a tokenizer.json. Throws Exit::data with "where: ..." for a damaged one, and for dropout.
    BytePairModel(const Json& json, Alphabet alphabet, const std::string& where);

    void encode(std::string_view piece, std::vector<int32_t>& ids, BpeCache& cache) const override;

  private:
    struct Merge {
        uint64_t pair;
        uint32_t rank;
        int32_t id;
    };
    /// A place inside a vocabulary entry before U+2581: the bytes on both sides.
    struct Joint {
        std::string before, behind;
    };

    void read_merges(const Json& json, const std::string& where);
    void read_symbols(const Json& json, const std::string& where);
    void find_joints();
    void add_merge(int32_t left, int32_t right, int32_t product);
    const Merge* find_merge(int32_t left, int32_t right) const;

    size_t end_of_word(std::string_view piece, size_t begin) const;
    void encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const override;
    void read_text(std::string_view word, std::vector<int32_t>& symbols) const;
    int32_t symbol(std::string_view character) const;
    bool fall_back_to_bytes(std::string_view character, std::vector<int32_t>& symbols) const;
    void merge_by_scan(std::vector<int32_t>& ids, BpeCache& cache) const;
    void merge_by_heap(std::vector<int32_t>& ids, BpeCache& cache) const;

    Alphabet alphabet_;
    bool ignore_merges_ = false, fuse_unknown_ = false, byte_fallback_ = false;
    bool words_are_cut_ = false;  // a piece is cut before U+2581, except at joints_
    std::string prefix_, suffix_;
    int32_t unknown_ = -1;
    Vocabulary whole_words_;                   // pieces in the alphabet of the text, if merges are ignored for them
    std::array<int32_t, 256> byte_ids_{};      // symbol of a byte of text or of an ASCII character; -1: none
    std::array<int32_t, 256> fallback_ids_{};  // of <0x00> to <0xFF>; -1: none
    std::vector<Merge> merges_;                // open addressing
    std::vector<uint64_t> may_merge_;          // a bit by hash: false for most pairs that do not merge
    std::vector<int32_t> products_;            // by rank
    std::vector<Joint> joints_;
};

/// Byte-level spelling: the character that stands for each byte, and the bytes that a text of such characters spells.
uint32_t byte_character(unsigned char byte);
/// False if `text` holds another character.
bool spelled_bytes(std::string_view text, std::string& bytes);

}  // namespace colonnade
