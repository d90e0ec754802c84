#pragma once
// Chats turn by turn: their sequences, and how they are shown.

#include <optional>
#include <string>
#include <vector>

#include "data/samples/encode.h"

namespace colonnade {

using Drafts = std::optional<std::vector<TokenDraft>>;

inline Drafts turns_of(const Encoder& encoder, const Row& row, Encoded& result) {
    TokenCache cache;
    return encoder.encode_turns(row, "here", cache, result);
}

/// Text of a sequence, learned parts in {{ }}.
inline std::string shown(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                         const std::vector<float>& weights) {
    std::string text;
    for (size_t i = 0; i < ids.size(); ++i) {
        const bool learned = i < weights.size() && weights[i] > 0;
        if (learned && (i == 0 || weights[i - 1] == 0)) text += "{{";
        text += tokenizer.decode({ids[i]}, SpecialTokens::keep);
        if (learned && (i + 1 == weights.size() || weights[i + 1] == 0)) text += "}}";
    }
    return text;
}

}  // namespace colonnade
