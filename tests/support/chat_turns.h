#pragma once
// Chats turn by turn: their messages, their sequences, and how they are shown.

#include <optional>
#include <string>
#include <vector>

#include "data/samples/encode.h"
#include "engine/io/json.h"

namespace colonnade {

using Drafts = std::optional<std::vector<TokenDraft>>;

inline Drafts turns_of(const Encoder& encoder, const Row& row, Encoded& result) {
    TokenCache cache;
    return encoder.encode_turns(row, "here", cache, result);
}

inline Message user(const std::string& text) {
    return {"user", text, {}, {}};
}
inline Message answer(const std::string& text, const std::string& thought = "") {
    return {"assistant", text, {}, thought.empty() ? Json() : Json{{"reasoning_content", thought}}};
}

/// The messages of a golden row, as its script wrote them.
inline std::vector<Message> golden_messages(const Json& golden) {
    std::vector<Message> messages;
    for (const Json& json : golden["messages"]) {
        Message message{json["role"], json["content"], {}, {}};
        for (const auto& [key, value] : json.items())
            if (key != "role" && key != "content") message.more[key] = value;
        messages.push_back(std::move(message));
    }
    return messages;
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
