#include "data/text/gguf_text.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "data/text/chat_renderer.h"
#include "data/text/gguf_tokenizer.h"
#include "data/text/gguf_vocabulary.h"
#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/own_file.h"

namespace colonnade {
namespace {

constexpr const char* space_prefix_key = "tokenizer.ggml.add_space_prefix";

// --- Roles -----------------------------------------------------------------------------------------------------------

struct RoleIds {
    RoleTokens roles;
    std::vector<int32_t> ends;  // beside roles.eos
};

RoleIds role_ids(const GgufText& t) {
    RoleIds ids{t.tokenizer ? t.tokenizer->roles() : RoleTokens(), {}};
    if (!ids.roles.bos) ids.roles.bos = t.bos;
    if (t.tokenizer && !ids.roles.bos && t.tokenizer->document_prefix().size() == 1)
        ids.roles.bos = t.tokenizer->document_prefix().front();
    if (!ids.roles.pad) ids.roles.pad = t.pad;
    for (const int32_t id : t.end_ids) {
        if (!ids.roles.eos) ids.roles.eos = id;
        if (id != *ids.roles.eos && std::ranges::find(ids.ends, id) == ids.ends.end()) ids.ends.push_back(id);
    }
    return ids;
}

void add_roles(const RoleIds& ids, GgufPairs& pairs, std::vector<std::string>& notices) {
    const auto add = [&](const char* name, std::optional<int32_t> id) {
        const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
        if (id && !pairs.has(key)) pairs.integer(key, *id);
    };
    const auto end = [&](size_t i) { return i < ids.ends.size() ? std::optional(ids.ends[i]) : std::nullopt; };
    add("bos", ids.roles.bos);
    add("eos", ids.roles.eos);
    add("eot", end(0));
    add("eom", end(1));
    add("unknown", ids.roles.unk);
    add("padding", ids.roles.pad);
    if (ids.ends.size() > 2)
        notices.push_back(
            fmt::format("a GGUF file names three tokens that end an answer; it does not name token {}", ids.ends[2]));
}

void add_document_rules(const GgufText& t, const RoleIds& ids, GgufPairs& pairs, std::vector<std::string>& notices) {
    const std::vector<int32_t>& prefix = t.tokenizer->document_prefix();
    pairs.boolean("tokenizer.ggml.add_bos_token", !prefix.empty());
    pairs.boolean("tokenizer.ggml.add_eos_token", false);
    if (!prefix.empty() && (prefix.size() > 1 || prefix.front() != ids.roles.bos))
        notices.push_back(fmt::format("llama.cpp puts the BOS token alone in front of a text, the tokenizer {}",
                                      fmt::join(prefix, ", ")));
}

// --- Templates -------------------------------------------------------------------------------------------------------

void add_templates(const std::vector<TextFolder::Template>& templates, GgufPairs& pairs) {
    std::vector<std::string> names;
    for (const TextFolder::Template& t : templates) {
        if (t.name == "default") {
            pairs.text("tokenizer.chat_template", t.source);
        } else {
            pairs.text(fmt::format("tokenizer.chat_template.{}", t.name), t.source);
            names.push_back(t.name);
        }
    }
    if (!names.empty()) pairs.texts("tokenizer.chat_templates", names);
}

// --- Spaces of SentencePiece -----------------------------------------------------------------------------------------

// A short chat; empty if the template needs more than messages.
std::string rendered_chat(const GgufText& t) {
    const std::vector<Message> messages = {{.role = "user", .content = "What is a stoa?"},
                                           {.role = "assistant", .content = "A covered walk."},
                                           {.role = "user", .content = "Who walked there?"}};
    try {
        return ChatRenderer(t.chat, t.tokenizer, t.end_ids)
            .render({.messages = messages, .variables = {}, .generation_prompt = true}, "a chat")
            .text;
    } catch (const Error&) {
        return "";
    }
}

size_t differences(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
    const size_t common = std::min(a.size(), b.size());
    size_t count = std::max(a.size(), b.size()) - common;
    for (size_t i = 0; i < common; ++i) count += a[i] != b[i];
    return count;
}

// The value of add_space_prefix.
bool settle_space_prefix(const GgufText& t, std::vector<std::string>& notices) {
    const Tokenizer& tokenizer = *t.tokenizer;
    const auto first = tokenizer.encode("x");
    const bool documents = !first.empty() && tokenizer.piece(first.front()).starts_with("\xE2\x96\x81");
    const std::string chat = t.chat ? rendered_chat(t) : "";
    if (chat.empty()) return documents;
    const std::vector<int32_t> trained = tokenizer.encode(chat, Spelled::token);
    const size_t wrong = differences(trained, llama_cpp_ids(tokenizer, chat, documents));
    if (wrong == 0) return documents;
    if (documents && llama_cpp_ids(tokenizer, chat, false) == trained) {
        notices.push_back(
            "add_space_prefix is false: llama.cpp then puts no space behind the special tokens of a chat, which gets "
            "the ids of training; a text that is no chat has no space in front there");
        return false;
    }
    notices.push_back(
        fmt::format("{} of {} ids of a short chat differ in llama.cpp, which puts a space behind every "
                    "special token",
                    wrong, trained.size()));
    return documents;
}

// --- Sources ---------------------------------------------------------------------------------------------------------

void add_vocabulary(GgufVocabulary v, const GgufText& t, const RoleIds& ids, GgufPairs& pairs,
                    std::vector<std::string>& notices) {
    v.pad_to(static_cast<size_t>(t.vocab_size));
    if (std::ssize(v.tokens) != t.vocab_size)
        fail(Exit::data, "{}: the tokenizer has {} tokens, the model embeds only {}", t.tokenizer->path(),
             v.tokens.size(), t.vocab_size);
    // llama.cpp takes tokens that end an answer for control tokens, whatever the file says, and warns.
    std::vector<int32_t> ends = ids.ends;
    if (ids.roles.eos) ends.push_back(*ids.roles.eos);
    for (const int32_t id : ends)
        if (int32_t& type = v.types.at(static_cast<size_t>(id)); type == static_cast<int32_t>(PieceType::user_defined))
            type = static_cast<int32_t>(PieceType::control);
    pairs.text("tokenizer.ggml.model", v.model);
    pairs.text("tokenizer.ggml.pre", v.model == "gpt2" ? v.pre : "default");
    pairs.texts("tokenizer.ggml.tokens", v.tokens);
    if (v.model == "llama") pairs.numbers("tokenizer.ggml.scores", v.scores);
    pairs.integers("tokenizer.ggml.token_type", v.types);
    if (v.model == "gpt2") pairs.texts("tokenizer.ggml.merges", v.merges);
    if (v.model == "llama") pairs.boolean(space_prefix_key, settle_space_prefix(t, notices));
    notices.insert(notices.end(), v.notices.begin(), v.notices.end());
}

// The tokens of added_tokens.json, as tokenizer_config.json would say them.
Json settings_of_added_tokens(const std::string& folder) {
    const std::string file = folder + "/added_tokens.json";
    Json decoder = Json::object();
    if (path_exists(file))
        for (const auto& [content, id] : read_json_file(own_file(folder, file)).items())
            decoder[id.dump()] = {{"content", content}};
    return {{"added_tokens_decoder", decoder}};
}

// The tokenizer.json of the source with all added tokens; null if a SentencePiece model decides.
Json whole_tokenizer_json(const GgufText& t) {
    const bool folder = is_folder(t.source);
    const std::string& file = t.tokenizer->path();  // the one that decides
    Json json;
    if (is_gguf_file(t.source)) {
        json = gguf_tokenizer(GgufReader(t.source)).tokenizer;
    } else if (file.ends_with(".json")) {
        json = read_json_file(file, {.bytes = limits::tokenizer_json_bytes});
    } else {
        return nullptr;
    }
    if (folder) {
        const std::string config = t.source + "/tokenizer_config.json";
        if (path_exists(config)) add_tokens(json, read_json_file(own_file(t.source, config)));
        add_tokens(json, settings_of_added_tokens(t.source));
    }
    if (!t.additions.empty()) add_tokens(json, settings_of(t.additions, *read_text_folder(t.source).tokenizer));
    return json;
}

void copy_vocabulary(const GgufMetadata& metadata, const GgufText& t, GgufPairs& pairs,
                     std::vector<std::string>& notices) {
    const auto tokens = metadata.texts("tokenizer.ggml.tokens");
    if (!tokens || std::ssize(*tokens) != t.vocab_size)
        fail(Exit::data, "{}: the tokenizer has {} tokens, the model embeds {}", t.source, tokens ? tokens->size() : 0,
             t.vocab_size);
    for (const auto& [key, value] : metadata.values())
        if (key.starts_with("tokenizer.ggml.") && key != space_prefix_key) pairs.copy(key, value);
    if (metadata.text("tokenizer.ggml.model") == "llama")
        pairs.boolean(space_prefix_key, settle_space_prefix(t, notices));
}

}  // namespace

std::vector<int32_t> llama_cpp_ids(const Tokenizer& tokenizer, std::string_view text, bool add_space_prefix) {
    std::vector<int32_t> ids;
    TokenCache cache;
    for (const SplitPart& part : tokenizer.split(text, {}).parts) {
        if (part.id >= 0)
            ids.push_back(part.id);
        else
            tokenizer.encode_between(text.substr(part.bytes.begin, part.bytes.size()),
                                     add_space_prefix ? TextStart::document : TextStart::behind_token, Spelled::token,
                                     ids, cache);
    }
    return ids;
}

std::vector<std::string> add_text_pairs(const GgufText& t, GgufPairs& pairs) {
    std::vector<std::string> notices;
    const RoleIds ids = role_ids(t);
    if (!t.tokenizer) {
        pairs.text("tokenizer.ggml.model", "none");
        add_roles(ids, pairs, notices);
        notices.emplace_back("without a tokenizer the file takes and gives token ids alone");
        return notices;
    }
    if (is_gguf_file(t.source) && t.additions.empty()) {
        copy_vocabulary(GgufReader(t.source).metadata(), t, pairs, notices);
        add_roles(ids, pairs, notices);
    } else {
        const Json json = whole_tokenizer_json(t);
        add_vocabulary(json.is_null() ? gguf_vocabulary(read_file(t.tokenizer->path()), *t.tokenizer)
                                      : gguf_vocabulary(json, t.tokenizer->path()),
                       t, ids, pairs, notices);
        add_roles(ids, pairs, notices);
        add_document_rules(t, ids, pairs, notices);
    }
    add_templates(t.templates, pairs);
    return notices;
}

}  // namespace colonnade
