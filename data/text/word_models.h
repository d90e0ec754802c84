#pragma once
// The models of a tokenizer.json that look whole words up: WordPiece (BERT's) and WordLevel.

#include <string>
#include <string_view>
#include <vector>

#include "data/text/token_model.h"

namespace colonnade {

/// The longest piece at the front, then the longest behind it with a prefix ("##"), and so on. A word that leaves a
/// rest, or that is too long, is unknown as a whole. Source: https://arxiv.org/abs/1609.08144.
class WordPieceModel final : public TokenModel {
  public:
    WordPieceModel(const Json& json, const std::string& where);

  private:
    void encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const override;

    std::string where_, unknown_, prefix_;
    size_t most_characters_ = 100, longest_piece_ = 0;
};

class WordLevelModel final : public TokenModel {
  public:
    WordLevelModel(const Json& json, const std::string& where);

  private:
    void encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const override;

    std::string where_, unknown_;
};

}  // namespace colonnade
