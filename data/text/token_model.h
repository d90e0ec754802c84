#pragma once
// TokenModel: the "model" of a tokenizer.json, which turns pieces of text into ids. Text repeats its words, so each
// thread keeps the ids of those that it has seen.

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
    friend class TokenModel;
    friend class BytePairModel;
    struct ShortWord {  // 32 bytes: up to 15 bytes of text with their number, and up to 3 ids
        uint64_t key[2];
        int32_t ids[3];
        uint32_t count;
    };
    struct alignas(64) ShortWords {
        ShortWord ways[2];
    };
    struct LongWord {
        uint64_t hash;
        uint32_t text, bytes, first, count;
    };
    std::vector<ShortWords> short_words_;
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

class TokenModel {
  public:
    virtual ~TokenModel() = default;
    TokenModel(const TokenModel&) = delete;
    TokenModel& operator=(const TokenModel&) = delete;

    /// Appends the ids of one piece. Throws Exit::data for a text that the model has no id for, if it has none for
    /// unknown text either.
    virtual void encode(std::string_view piece, std::vector<int32_t>& ids, BpeCache& cache) const {
        encode_word(piece, ids, cache);
    }
    const Vocabulary& vocabulary() const { return vocabulary_; }

  protected:
    TokenModel() = default;
    /// Reads the object "vocab". Errors begin with "where: model.vocab: ...".
    void read_vocabulary(const Json& json, const std::string& where);
    /// Adds a piece. Throws for an id that is taken, for a piece that is there already and for too large an id.
    void add_piece(const std::string& piece, int64_t id, const std::string& where);
    int32_t id_of(std::string_view piece) const;  ///< -1: not in the vocabulary

    /// Appends the ids of a word by the cache.
    void encode_word(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const;
    virtual void encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const = 0;

    Vocabulary vocabulary_;

  private:
    void encode_long_word(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const;

    std::vector<bool> taken_;  // ids
};

/// The product of two integers, its halves joined: a hash.
inline uint64_t mix(uint64_t a, uint64_t b) {
    const __uint128_t product = static_cast<__uint128_t>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace colonnade
