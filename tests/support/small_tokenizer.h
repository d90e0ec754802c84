#pragma once
// A tokenizer of a few hundred pieces with the special tokens that a test asks for.

#include <memory>
#include <string>
#include <vector>

#include "data/text/hugging_face_tokenizer.h"
#include "engine/io/json.h"
#include "tests/support/paths.h"

namespace colonnade {

/// The roles "<s>", "</s>", "<pad>" and "<unk>" are always there; `eos` may name another token.
struct SmallTokenizer {
    std::vector<std::string> special = {};
    std::string eos = "</s>";
    std::string family = "qwen2";  ///< a folder of tests/golden/tokenizers
};

/// tokenizer.json of a golden tokenizer with further special tokens.
inline Json small_tokenizer_json(const SmallTokenizer& wanted) {
    Json json = read_json_file(golden_file("tokenizers/" + wanted.family + "/tokenizer.json"));
    int64_t next = 0;
    for (const auto& [piece, id] : json["model"]["vocab"].items()) next = std::max(next, id.get<int64_t>() + 1);
    for (const Json& token : json["added_tokens"]) next = std::max(next, token["id"].get<int64_t>() + 1);
    std::vector<std::string> special = {"<s>", "</s>", "<pad>", "<unk>", wanted.eos};
    special.insert(special.end(), wanted.special.begin(), wanted.special.end());
    for (const std::string& token : special) {
        bool known = false;
        for (const Json& added : json["added_tokens"]) known = known || added["content"] == token;
        if (known) continue;
        json["added_tokens"].push_back({{"id", next++},
                                        {"content", token},
                                        {"single_word", false},
                                        {"lstrip", false},
                                        {"rstrip", false},
                                        {"normalized", false},
                                        {"special", true}});
    }
    return json;
}

inline std::shared_ptr<const Tokenizer> small_tokenizer(const SmallTokenizer& wanted) {
    auto made = std::make_shared<HuggingFaceTokenizer>(small_tokenizer_json(wanted), "small/tokenizer.json");
    made->set_roles(
        {made->piece_id("<s>"), made->piece_id(wanted.eos), made->piece_id("<pad>"), made->piece_id("<unk>")});
    return made;
}

}  // namespace colonnade
