#pragma once
// What must hold in a SentencePiece model file before SentencePiece may load it. The library trusts its models: a long
// piece, a normaliser table that points outside itself or a duplicate piece ends in a crash there, in an Error here.

#include <optional>
#include <string>

namespace colonnade {

/// Checks `bytes`, read from `path`. Exit::data with "path: ..." for anything that is no model file or breaks a limit:
/// 1 to 1 million pieces of 1 to 1024 bytes, no two alike, exactly one unknown piece, scores finite, special ids in
/// range, normaliser tables closed. Returns the same model without its leading dummy space, or nothing where it adds
/// none.
std::optional<std::string> check_sentencepiece_model(const std::string& bytes, const std::string& path);

/// True where the ids of a text are those of its words one after the other, a word being spaces and what follows up to
/// the next space: a BPE model that leaves text as it is and has no piece in which a space follows anything else. Of a
/// model that was checked.
bool words_stand_alone(const std::string& bytes);

}  // namespace colonnade
