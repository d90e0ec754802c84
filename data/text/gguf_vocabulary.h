#pragma once
// The vocabulary of a tokenizer as a GGUF file holds it: the other direction of data/text/gguf_tokenizer.h.

#include <string>
#include <vector>

#include "data/text/sentencepiece_export.h"
#include "data/text/tokenizer.h"
#include "engine/io/json.h"

namespace colonnade {

struct GgufVocabulary {
    std::string model;  ///< tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE)
    std::string pre;    ///< tokenizer.ggml.pre; of gpt2
    std::vector<std::string> tokens{};   ///< by id
    std::vector<int32_t> types{};        ///< PieceType of each
    std::vector<float> scores{};         ///< of llama: the pair whose product has the highest score is merged first
    std::vector<std::string> merges{};   ///< of gpt2: "a b", in their order
    std::vector<std::string> notices{};  ///< what llama.cpp does otherwise, one line each

    /// Sets a token; ids in between that have none become unused ones, as do those up to `size` in pad_to().
    void set(size_t id, std::string text, PieceType type);
    void pad_to(size_t size);
};

/// Of a tokenizer.json with all added tokens. Throws Exit::data, naming `where` and the section, for what llama.cpp has
/// no rule for: a model other than BPE, a split without a name in gguf_pre_tokenizers.h, a normalizer that changes more
/// than spaces, merges in another order than that of the scores of their products.
GgufVocabulary gguf_vocabulary(const Json& tokenizer_json, const std::string& where);

/// Of a SentencePiece model that check_sentencepiece_model has passed, with the added tokens of `tokenizer`. Throws
/// Exit::data for one that is not BPE.
GgufVocabulary gguf_vocabulary(const std::string& model, const Tokenizer& tokenizer);

}  // namespace colonnade
