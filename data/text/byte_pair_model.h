#pragma once
// BytePairModel: the BPE model of a tokenizer.json. Pieces of text become ids by merging the pair of lowest rank,
// leftmost first, until none is left. Text repeats its words, so each thread keeps the ids of those that it has seen.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/io/json.h"

namespace colonnade {

/// Ids of the words that one thread has encoded with one model. Never changes a result. The size is bounded.
class BpeCache {
  public:
    BpeCache();

  private:
    friend class BytePairModel;
    struct ShortWord {  // 32 bytes: up to 15 bytes of text with their number, and up to 3 ids
        uint64_t key[2];
        int32_t ids[3];
        uint32_t count;
    };
    struct LongWord {
        uint64_t hash;
        uint32_t text, bytes, first, count;
    };
    std::vector<ShortWord> short_words_;  // two to a set
    std::vector<LongWord> long_words_;
    std::string texts_;
    std::vector<int32_t> ids_;
    // Scratch memory of the merge loops
    std::vector<int32_t> symbols_, next_, previous_;
    std::vector<uint32_t> ranks_;
    struct Candidate {
        uint32_t rank, at;
        int32_t id;
    };
    std::vector<Candidate> heap_;
};

struct PieceHash : std::hash<std::string_view> {
    using is_transparent = void;
};
using Vocabulary = std::unordered_map<std::string, int32_t, PieceHash, std::equal_to<>>;

class BytePairModel {
  public:
    /// Alphabet of the text that encode() gets: raw bytes, whose pieces the vocabulary spells in byte characters, or
    /// the characters of the vocabulary itself.
    enum class Alphabet { bytes, characters };

    /// `json`: the "model" of a tokenizer.json. Throws Exit::data with "where: ..." for a damaged one, and for dropout.
    BytePairModel(const Json& json, Alphabet alphabet, const std::string& where);

    /// Appends the ids of one piece.
    void encode(std::string_view piece, std::vector<int32_t>& ids, BpeCache& cache) const;

    const Vocabulary& vocabulary() const { return vocabulary_; }

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

    void read_vocabulary(const Json& json, const std::string& where);
    void read_merges(const Json& json, const std::string& where);
    void read_symbols(const Json& json, const std::string& where);
    void find_joints();
    void add_merge(int32_t left, int32_t right, int32_t product);
    const Merge* find_merge(int32_t left, int32_t right) const;

    size_t end_of_word(std::string_view piece, size_t begin) const;
    void encode_word(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const;
    void encode_long_word(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const;
    void encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const;
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
    Vocabulary vocabulary_;
    Vocabulary whole_words_;                   // pieces in the alphabet of the text, if merges are ignored for them
    std::array<int32_t, 256> byte_ids_{};      // symbol of a byte of text or of an ASCII character; -1: none
    std::array<int32_t, 256> fallback_ids_{};  // of <0x00> to <0xFF>; -1: none
    std::vector<Merge> merges_;                // open addressing
    std::vector<int32_t> products_;            // by rank
    std::vector<Joint> joints_;
};

/// Byte-level spelling: the character that stands for each byte, and the bytes that a text of such characters spells.
uint32_t byte_character(unsigned char byte);
/// False if `text` holds another character.
bool spelled_bytes(std::string_view text, std::string& bytes);

}  // namespace colonnade
