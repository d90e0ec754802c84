#pragma once
// UnigramModel: the Unigram model of a tokenizer.json (SentencePiece's). A piece of text becomes the sequence of
// vocabulary entries with the highest sum of scores (Viterbi). Source: Kudo, 2018, https://arxiv.org/abs/1804.10959.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/token_model.h"

namespace colonnade {

class UnigramModel final : public TokenModel {
  public:
    /// `json`: the "model" of a tokenizer.json. Throws Exit::data with "where: model...: ..." for a damaged one.
    UnigramModel(const Json& json, const std::string& where);

  private:
    struct Edge {
        uint64_t key;  // node and byte
        uint32_t node;
    };
    void read_pieces(const Json& json, const std::string& where);
    void add_to_trie(std::string_view piece, int32_t id);
    uint32_t child(uint32_t node, char byte) const;  ///< 0: none
    void encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const override;
    void append_unknown(std::string_view text, std::vector<int32_t>& ids) const;

    std::string where_;
    std::vector<double> scores_;  // by id
    double unknown_score_ = 0;
    int32_t unknown_ = -1;
    bool byte_fallback_ = false;
    std::vector<Edge> edges_;        // of the trie: open addressing
    std::vector<int32_t> node_ids_;  // -1: no piece ends here
};

}  // namespace colonnade
