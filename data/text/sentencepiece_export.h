#pragma once
// A tokenizer.json that encodes as a SentencePiece BPE model does, for exports and for GGUF files. transformers makes
// one of a bare tokenizer.model, too, but orders merges by the ids of their products; SentencePiece orders them by
// score.
//
// Under the `tokenizers` package (0.23.3) the ids of every text equal SentencePiece's, with these differences, which
// are what chats are trained with: control pieces in a text become their ids unless split_special_tokens is set, and
// a text that begins with a control or user-defined piece has no dummy prefix before it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/io/json.h"

namespace colonnade {

/// In the order of their numbers in SentencePiece's schema, from 1, and in GGUF's tokenizer.ggml.token_type.
enum class PieceType { normal = 1, unknown, control, user_defined, unused, byte };

struct SentencePieces {
    struct Piece {
        std::string text;  ///< with U+2581 for the space
        float score = 0;   ///< the pair whose product has the highest score is merged first
        PieceType type = PieceType::normal;
    };
    std::vector<Piece> pieces{};   ///< by id
    bool dummy_prefix = true;      ///< a space in front of a text
    std::optional<int32_t> bos{};  ///< the post-processor puts it in front
};

struct ExportedTokenizer {
    Json json;             ///< a tokenizer.json; null if there is an obstacle
    std::string obstacle;  ///< why the model cannot be written as a tokenizer.json; empty: it can
};

ExportedTokenizer tokenizer_json(const SentencePieces& pieces);

/// `bytes`: a SentencePiece model that check_sentencepiece_model has passed. Obstacles: models that are not BPE, that
/// normalise text, remove spaces or put them behind words.
ExportedTokenizer tokenizer_json_of_model(const std::string& bytes);

/// The "post_processor" that puts one piece in front of a text.
Json leading_token_json(const std::string& piece, int32_t id);
/// An entry of "added_tokens", found in texts as it is spelled.
Json added_token_json(const std::string& text, int32_t id, bool special);
/// Appends to an object without looking for the key, which must be new: ordered objects are searched from the front.
void append_new(Json& object, std::string key, Json value);

}  // namespace colonnade
