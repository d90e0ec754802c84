#pragma once
// Checks of a SentencePiece model file before SentencePiece loads it. The library trusts its models: an overlong piece,
// a normaliser table with offsets outside itself or a duplicate piece crashes it. Here they are an Error.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

/// Checks `bytes`, read from `path`. Throws Exit::data with "path: ..." unless it is a model file within these limits:
/// 1 to 1 million pieces of 1 to 1024 bytes, no duplicates, exactly one unknown piece, finite scores, special ids in
/// range, and normaliser tables whose offsets stay inside. Returns the same model without its leading dummy space, or
/// nothing if the model adds none.
std::optional<std::string> check_sentencepiece_model(const std::string& bytes, const std::string& path);

/// Whether the ids of a text are the ids of its words, one word after the other; a word is spaces with the text up to
/// the next space. True for a BPE model that does not normalise text and has no piece with a space after another
/// character. `bytes`: a checked model.
bool words_stand_alone(const std::string& bytes);

/// Whether a piece is one that chat templates write as a control token: <|...|>, [INST], <start_of_turn>.
bool looks_like_control(std::string_view piece);

/// The control and user-defined pieces of a checked model.
struct SentencePieceSymbol {
    std::string piece;
    int32_t id = 0;
    bool control = false;
};
std::vector<SentencePieceSymbol> sentencepiece_symbols(const std::string& bytes);

}  // namespace colonnade
