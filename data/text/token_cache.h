#pragma once
// TokenCache: ids of the words that one thread has encoded with one tokenizer. Saves time, never changes a result. Its
// size is bounded.

#include "data/text/byte_pair_model.h"
#include "data/text/word_cache.h"

namespace colonnade {

struct TokenCache {
    WordCache words;     ///< of a SentencePiece model
    BpeCache bpe_words;  ///< of a tokenizer.json
};

}  // namespace colonnade
