#include "data/text/gguf_tokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "data/text/byte_pair_model.h"
#include "data/text/gguf_pre_tokenizers.h"
#include "data/text/sentencepiece_export.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr const char* way_out =
    "give tokenizer_name_or_path: the Hugging Face folder of the model that the file was made from";

using Extra = GgufPreTokenizer::Extra;

// The vocabulary of a file, its lists checked.
struct TokenLists {
    std::vector<std::string_view> tokens;
    std::vector<int64_t> types;
};

TokenLists read_vocabulary(const GgufReader& file) {
    const GgufMetadata& metadata = file.metadata();
    constexpr size_t most = limits::tokens, longest = limits::token_bytes;
    auto tokens = metadata.texts("tokenizer.ggml.tokens");
    if (!tokens || tokens->empty() || tokens->size() > most)
        fail(Exit::data, "{}: key 'tokenizer.ggml.tokens': expected 1 to {} tokens, found {}; {}", file.path(), most,
             tokens ? tokens->size() : 0, way_out);
    auto types = metadata.integers("tokenizer.ggml.token_type");
    if (!types) types.emplace(tokens->size(), static_cast<int64_t>(PieceType::normal));
    if (types->size() != tokens->size())
        fail(Exit::data, "{}: key 'tokenizer.ggml.token_type' has {} entries for {} tokens", file.path(), types->size(),
             tokens->size());
    std::unordered_set<std::string_view> seen;
    for (size_t id = 0; id < tokens->size(); ++id) {
        if (well_formed_prefix((*tokens)[id]) != (*tokens)[id].size())
            fail(Exit::data, "{}: key 'tokenizer.ggml.tokens': token {} is ill-formed UTF-8; {}", file.path(), id,
                 way_out);
        if ((*tokens)[id].size() > longest || !seen.insert((*tokens)[id]).second)
            fail(Exit::data, "{}: key 'tokenizer.ggml.tokens': token {} is {}", file.path(), id,
                 (*tokens)[id].size() > longest ? "longer than 1024 bytes" : "a duplicate");
        if ((*types)[id] < 1 || (*types)[id] > 6)
            fail(Exit::data, "{}: key 'tokenizer.ggml.token_type': token {} has type {}, expected 1 to 6", file.path(),
                 id, (*types)[id]);
    }
    return {std::move(*tokens), std::move(*types)};
}

PieceType type_of(const TokenLists& vocabulary, size_t id) {
    return static_cast<PieceType>(vocabulary.types[id]);
}

// Id of a special token, such as "bos"; nothing if the file has none. Some files write 2^32 - 1 for none.
std::optional<int32_t> special_id(const GgufReader& file, const TokenLists& vocabulary, std::string_view name) {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    const auto id = file.metadata().integer(key);
    if (!id || *id == -1 || *id == UINT32_MAX) return {};
    if (*id < 0 || *id >= std::ssize(vocabulary.tokens))
        fail(Exit::data, "{}: key '{}' is {}, but there are {} tokens", file.path(), key, *id,
             vocabulary.tokens.size());
    return static_cast<int32_t>(*id);
}

Json merges_json(const GgufReader& file) {
    const auto merges = file.metadata().texts("tokenizer.ggml.merges");
    if (!merges) fail(Exit::data, "{}: no key 'tokenizer.ggml.merges'; {}", file.path(), way_out);
    Json pairs = Json::array();
    for (const std::string_view merge : *merges) {
        if (well_formed_prefix(merge) != merge.size())
            fail(Exit::data, "{}: key 'tokenizer.ggml.merges': merge {} is ill-formed UTF-8; {}", file.path(),
                 pairs.size(), way_out);
        // A part may begin with a space itself.
        const size_t space = merge.find(' ', 1);
        if (space == merge.npos || space + 1 == merge.size())
            fail(Exit::data, "{}: key 'tokenizer.ggml.merges': '{:.100}': expected two pieces and a space", file.path(),
                 merge);
        pairs.push_back(Json::array({merge.substr(0, space), merge.substr(space + 1)}));
    }
    return pairs;
}

const GgufPreTokenizer& find_pre_tokenizer(const GgufReader& file) {
    const std::string name = file.metadata().text("tokenizer.ggml.pre").value_or("");
    const auto known = gguf_pre_tokenizers();
    const auto found = std::ranges::find(known, name, &GgufPreTokenizer::name);
    if (found != known.end()) return *found;
    std::vector<std::string_view> names;
    for (const GgufPreTokenizer& pre : known) names.push_back(pre.name);
    fail(Exit::data, "{}: tokenizer.ggml.pre '{:.100}' does not say how text is split; expected one of {}; {}",
         file.path(), name, fmt::join(names, ", "), way_out);
}

// Unused tokens pad the vocabulary to the size of the embedding.
Json byte_pair_json(const GgufReader& file, const TokenLists& vocabulary, const GgufPreTokenizer& pre) {
    Json pieces = Json::object(), added = Json::array();
    std::string bytes;
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
        const PieceType type = type_of(vocabulary, id);
        if (type == PieceType::unused) continue;
        const std::string text(vocabulary.tokens[id]);
        const bool added_token = type == PieceType::control || type == PieceType::user_defined;
        if (!added_token && !spelled_bytes(text, bytes))
            fail(Exit::data,
                 "{}: key 'tokenizer.ggml.tokens': token {}, '{:.100}', is not spelled in byte characters; {}",
                 file.path(), id, text, way_out);
        append_new(pieces, text, id);
        if (added_token) added.push_back(added_token_json(text, static_cast<int32_t>(id), type == PieceType::control));
    }
    Json model = {{"type", "BPE"},
                  {"dropout", nullptr},
                  {"unk_token", nullptr},
                  {"continuing_subword_prefix", nullptr},
                  {"end_of_word_suffix", nullptr},
                  {"fuse_unk", false},
                  {"byte_fallback", false},
                  {"ignore_merges", pre.ignore_merges},
                  {"vocab", std::move(pieces)},
                  {"merges", merges_json(file)}};
    return {
        {"version", "1.0"},
        {"truncation", nullptr},
        {"padding", nullptr},
        {"added_tokens", std::move(added)},
        {"normalizer", pre.extra == Extra::nfc ? Json::object({{"type", "NFC"}}) : Json()},
        {"pre_tokenizer", pre_tokenizer_json(pre)},
        {"post_processor", nullptr},
        {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
        {"model", std::move(model)}};
}

Json sentencepiece_json(const GgufReader& file, const TokenLists& vocabulary) {
    const GgufMetadata& metadata = file.metadata();
    const auto scores = metadata.numbers("tokenizer.ggml.scores");
    if (!scores || scores->size() != vocabulary.tokens.size())
        fail(Exit::data, "{}: key 'tokenizer.ggml.scores' has {} entries for {} tokens; {}", file.path(),
             scores ? scores->size() : 0, vocabulary.tokens.size(), way_out);
    if (const auto odd = std::ranges::find_if(
            *scores, [](double score) { return !(std::abs(score) <= std::numeric_limits<float>::max()); });
        odd != scores->end())
        fail(Exit::data, "{}: key 'tokenizer.ggml.scores': token {} has score {}, expected a finite f32", file.path(),
             odd - scores->begin(), *odd);
    if (metadata.boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false))
        fail(Exit::data, "{}: key 'tokenizer.ggml.remove_extra_whitespaces' is true, which is not supported; {}",
             file.path(), way_out);
    SentencePieces pieces{.dummy_prefix = metadata.boolean("tokenizer.ggml.add_space_prefix").value_or(true)};
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
        pieces.pieces.push_back(
            {std::string(vocabulary.tokens[id]), static_cast<float>((*scores)[id]), type_of(vocabulary, id)});
    ExportedTokenizer made = tokenizer_json(pieces);
    if (!made.obstacle.empty())
        fail(Exit::data, "{}: the tokenizer cannot be used: {}; {}", file.path(), made.obstacle, way_out);
    return std::move(made.json);
}

// One template, or all of them by name.
Json chat_templates(const GgufReader& file) {
    const GgufMetadata& metadata = file.metadata();
    constexpr std::string_view key = "tokenizer.chat_template";
    Json named = Json::array();
    const auto first = metadata.text(key);
    if (first) named.push_back({{"name", "default"}, {"template", *first}});
    for (const auto& [name, value] : metadata.values())
        if (name.starts_with(key) && name.size() > key.size() + 1 && name[key.size()] == '.')
            named.push_back({{"name", std::string(name.substr(key.size() + 1))}, {"template", *metadata.text(name)}});
    for (const Json& chat : named)
        for (const auto& [part, text] : chat.items())
            if (const auto& bytes = text.get_ref<const std::string&>(); well_formed_prefix(bytes) != bytes.size())
                fail(Exit::data, "{}: key '{}': a template's {} is ill-formed UTF-8", file.path(), key, part);
    if (named.empty()) return nullptr;
    return named.size() == 1 && first ? Json(*first) : named;
}

}  // namespace

GgufTokenizer gguf_tokenizer(const GgufReader& file) {
    const GgufMetadata& metadata = file.metadata();
    const std::string kind = metadata.text("tokenizer.ggml.model").value_or("");
    if (kind != "gpt2" && kind != "llama")
        fail(Exit::data, "{}: tokenizer.ggml.model is '{:.100}', expected gpt2 or llama; {}", file.path(), kind,
             way_out);
    const TokenLists vocabulary = read_vocabulary(file);
    GgufTokenizer result;
    bool adds_bos = true;
    if (kind == "gpt2") {
        const GgufPreTokenizer& pre = find_pre_tokenizer(file);
        result.tokenizer = byte_pair_json(file, vocabulary, pre);
        adds_bos = pre.bos;
    } else {
        result.tokenizer = sentencepiece_json(file, vocabulary);
    }
    adds_bos = metadata.boolean("tokenizer.ggml.add_bos_token").value_or(adds_bos);
    result.config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
    for (const auto& [key, name] :
         {std::pair{"bos_token", "bos"}, {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}})
        if (const auto id = special_id(file, vocabulary, name))
            result.config[key] = std::string(vocabulary.tokens[static_cast<size_t>(*id)]);
    const auto bos = special_id(file, vocabulary, "bos");
    if (adds_bos && bos)
        result.tokenizer["post_processor"] =
            leading_token_json(std::string(vocabulary.tokens[static_cast<size_t>(*bos)]), *bos);
    result.config["add_bos_token"] = adds_bos && bos;
    if (Json chat = chat_templates(file); !chat.is_null()) result.config["chat_template"] = std::move(chat);
    return result;
}

}  // namespace colonnade
