#include "data/text/text_folder.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "data/text/gguf_tokenizer.h"
#include "data/text/hugging_face_tokenizer.h"
#include "data/text/sentencepiece_export.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/limits.h"
#include "engine/io/own_file.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

Json read_if_any(const fs::path& path) {
    return path_exists(path) ? read_json_file(own_file(path.parent_path().string(), path.string())) : Json::object();
}

/// A token is written as a string, or as an object with its content and flags.
std::string token_text(const Json& json, const std::string& where) {
    if (json.is_null()) return "";
    if (json.is_string()) return json.get<std::string>();
    if (json.is_object() && json.contains("content") && json["content"].is_string()) return json["content"];
    fail(Exit::data, "{}: expected a token, found {:.100}", where, json.dump());
}

/// The tokens of an added_tokens_decoder.
std::vector<AddedToken> tokens_of(const Json& decoder, const std::string& where) {
    std::vector<AddedToken> tokens;
    for (const auto& [key, token] : decoder.items()) {
        const bool number = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == key.npos;
        if (!number || !token.is_object()) fail(Exit::data, "{}: '{:.40}': expected an id with a token", where, key);
        const auto flag = [&, &token = token](const char* name) { return token.value(name, Json(false)) == true; };
        tokens.push_back({.content = token_text(token, where),
                          .decoded = {},
                          .id = std::stoi(key),
                          .special = flag("special"),
                          .normalized = flag("normalized"),
                          .single_word = flag("single_word"),
                          .left_strip = flag("lstrip"),
                          .right_strip = flag("rstrip")});
    }
    return tokens;
}

/// Appends the tokens that a tokenizer.json lacks, by id.
void append_missing(Json& json, const std::vector<AddedToken>& tokens) {
    std::map<int64_t, Json> missing;
    for (const AddedToken& token : tokens)
        missing[token.id] = {{"id", token.id},
                             {"content", token.content},
                             {"special", token.special},
                             {"normalized", token.normalized},
                             {"single_word", token.single_word},
                             {"lstrip", token.left_strip},
                             {"rstrip", token.right_strip}};
    Json& added = json["added_tokens"];
    if (added.is_null()) added = Json::array();
    if (!added.is_array()) return;  // the tokenizer reports it
    for (const Json& token : added)
        if (token.is_object() && token.contains("content"))
            std::erase_if(missing, [&](const auto& item) { return item.second["content"] == token["content"]; });
    for (auto& [id, token] : missing) added.push_back(std::move(token));
}

constexpr const char* decoder_key = "added_tokens_decoder";

/// Reads the files of one folder.
class Reader {
  public:
    /// `settings` add to those of the folder.
    Reader(const fs::path& folder, const Json& settings)
        : folder_(folder),
          config_file_(folder / "tokenizer_config.json"),
          config_(read_config(settings)),
          map_(read_if_any(folder / "special_tokens_map.json")) {
        for (const auto& [json, name] :
             {std::pair{&config_, "tokenizer_config.json"}, {&map_, "special_tokens_map.json"}})
            if (!json->is_object())
                fail(Exit::data, "{}: expected an object, found {}", (folder / name).string(), json->type_name());
    }

    /// Of a file that holds a tokenizer, with these settings.
    static Reader of_file(const fs::path& file, Json config) { return Reader(file, std::move(config), Json::object()); }

    TextFolder read_from(Json tokenizer) {
        add_missing_tokens(tokenizer);
        make_tokenizer(tokenizer, folder_);
        read_config_templates();
        return std::move(result_);
    }

    TextFolder read() {
        check_exported_files(folder_.string());
        read_tokenizer();
        read_templates();
        for (const char* name : {"generation_config.json", "config.json"})
            if (result_.end_ids.empty()) read_end_ids(folder_ / name);
        return std::move(result_);
    }

    TextFolder read_model(const fs::path& path) {
        read_sentencepiece(path);
        return std::move(result_);
    }

  private:
    Reader(const fs::path& file, Json config, Json map)
        : folder_(file), config_file_(file), config_(std::move(config)), map_(std::move(map)) {}

    Json read_config(const Json& settings) const {
        Json config = read_if_any(config_file_);
        if (config.is_object()) add_settings(config, settings);
        return config;
    }

    void read_tokenizer() {
        const fs::path json = folder_ / "tokenizer.json", model = folder_ / "tokenizer.model";
        if (!path_exists(json) && !path_exists(model))
            fail(Exit::data,
                 "{}: contains neither tokenizer.json nor tokenizer.model{}; rows of token ids ({{\"input_ids\": "
                 "[...]}}) "
                 "work with any model",
                 folder_.string(), other_tokenizer());
        if (!path_exists(json)) return read_sentencepiece(model);
        read_tokenizer_json(json);
        if (path_exists(model))
            result_.notices.push_back(fmt::format(
                "{}: tokenizer.json decides the ids; tokenizer.model beside it is not used", folder_.string()));
    }

    std::string other_tokenizer() const {
        for (const char* name : {"vocab.json", "tekken.json", "qwen.tiktoken", "tiktoken.model", "vocab.txt"})
            if (path_exists(folder_ / name))
                return fmt::format(
                    " but {}; transformers writes a tokenizer.json from it: "
                    "AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)",
                    name);
        return "";
    }

    void read_tokenizer_json(const fs::path& path) {
        Json json = read_json_file(path.string(), {.bytes = limits::tokenizer_json_bytes});
        if (json.is_object()) add_missing_tokens(json);
        make_tokenizer(json, path);
    }

    /// "add_bos_token" of tokenizer_config.json replaces what the file itself puts in front of a text.
    void make_tokenizer(const Json& json, const fs::path& path) {
        auto tokenizer = std::make_shared<HuggingFaceTokenizer>(json, path.string());
        tokenizer->set_roles(roles(*tokenizer));
        const Json adds_bos = config_.value("add_bos_token", Json());
        if (adds_bos == false) tokenizer->set_document_prefix({});
        if (adds_bos == true && tokenizer->bos()) tokenizer->set_document_prefix({*tokenizer->bos()});
        result_.tokenizer = tokenizer;
    }

  public:
    /// Appends the tokens of added_tokens_decoder that tokenizer.json lacks.
    void add_missing_tokens(Json& json) const { append_missing(json, added_tokens()); }

  private:
    /// added_tokens_decoder of tokenizer_config.json and added_tokens.json.
    std::vector<AddedToken> added_tokens() const {
        const std::string where = fmt::format("{}: {}", config_file_.string(), decoder_key);
        std::vector<AddedToken> tokens = tokens_of(config_.value(decoder_key, Json::object()), where);
        const fs::path path = folder_ / "added_tokens.json";
        const Json added = read_if_any(path);
        for (const auto& [content, id] : added.items()) {
            if (!id.is_number_unsigned() || id > 1 << 24)
                fail(Exit::data, "{}: '{:.100}': expected an id, found {:.40}", path.string(), content, id.dump());
            const auto same = [&](const AddedToken& token) { return token.content == content; };
            if (std::ranges::none_of(tokens, same)) tokens.push_back({.content = content, .decoded = {}, .id = id});
        }
        std::erase_if(tokens, [](const AddedToken& token) { return token.content.empty(); });
        return tokens;
    }

    void read_sentencepiece(const fs::path& path) {
        const bool adds_bos = config_.value("add_bos_token", Json(true)) != false;
        auto tokenizer = std::make_shared<SentencePieceTokenizer>(
            path.string(), SentencePieceTokenizer::Options{added_tokens(), adds_bos});
        tokenizer->set_roles(roles(*tokenizer));
        result_.tokenizer = tokenizer;
    }

    RoleTokens roles(const Tokenizer& tokenizer) {
        RoleTokens roles = tokenizer.roles();
        const auto override_by = [&](const char* key, std::optional<int32_t>& role) {
            const Json& from = config_.contains(key) ? config_ : map_;
            if (!from.contains(key)) return;
            const std::string text = token_text(from[key], fmt::format("{}: {}", folder_.string(), key));
            role = text.empty() ? std::nullopt : tokenizer.piece_id(text);
            if (!text.empty() && !role) tell_unused(folder_, key, "'" + text + "'");
        };
        override_by("bos_token", roles.bos);
        override_by("eos_token", roles.eos);
        override_by("pad_token", roles.pad);
        override_by("unk_token", roles.unk);
        for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
            const Json tokens = config_.value(key, map_.value(key, Json()));
            for (const auto& [index, token] : tokens.items()) {  // a list, or an object of named tokens
                const std::string text = token_text(token, fmt::format("{}: {}", folder_.string(), key));
                if (!text.empty() && !tokenizer.piece_id(text)) tell_unused(folder_, key, "'" + text + "'");
            }
        }
        return roles;
    }

    void tell_unused(const fs::path& where, const char* key, const std::string& token) {
        result_.notices.push_back(
            fmt::format("{}: {} {} is no token of the tokenizer; it is not used", where.string(), key, token));
    }

    void add_template(std::string name, const fs::path& file, std::string source) {
        result_.templates.push_back({std::move(name), std::move(source), file.string()});
    }

    void read_templates() {
        constexpr size_t most = limits::template_bytes;
        if (const fs::path file = folder_ / "chat_template.jinja"; path_exists(file))
            add_template("default", file, read_file(file.string(), most));
        if (const fs::path more = folder_ / "chat_templates"; is_folder(more))
            for (const std::string& name : names_in(more))
                if (const fs::path file = more / name; file.extension() == ".jinja")
                    add_template(file.stem(), file, read_file(file.string(), most));
        if (result_.templates.empty()) read_config_templates();
        std::ranges::stable_sort(result_.templates, {}, [](const auto& t) { return t.name != "default"; });
    }

    void read_config_templates() {
        const fs::path& file = config_file_;
        const Json templates = config_.value("chat_template", Json());
        if (templates.is_null()) return;
        if (templates.is_string()) return add_template("default", file, templates);
        const auto is_named = [](const Json& t) {
            return t.is_object() && t.contains("name") && t["name"].is_string() && t.contains("template") &&
                   t["template"].is_string();
        };
        if (!templates.is_array() || !std::ranges::all_of(templates, is_named))
            fail(Exit::data, "{}: chat_template: expected a text, or a list of {{name, template}}", file.string());
        for (const Json& named : templates) add_template(named["name"], file, named["template"]);
    }

    void read_end_ids(const fs::path& path) {
        const Json config = read_if_any(path);
        if (!config.is_object() || !config.contains("eos_token_id")) return;
        const Json& ids = config["eos_token_id"];
        if (ids.is_null()) return;
        for (const Json& id : ids.is_array() ? ids : Json::array({ids})) {
            if (!id.is_number_integer())
                fail(Exit::data, "{}: eos_token_id: expected an id or a list of ids, found {:.100}", path.string(),
                     ids.dump());
            if (id >= 0 && id < result_.tokenizer->vocab_size())
                result_.end_ids.push_back(id);
            else
                tell_unused(path, "eos_token_id", id.dump());
        }
    }

    const fs::path folder_, config_file_;
    const Json config_, map_;
    TextFolder result_;
};

TextFolder read_one_file(const std::string& path, const Json& settings) {
    if (is_gguf_file(path)) {
        GgufTokenizer made = gguf_tokenizer(GgufReader(path));
        add_settings(made.config, settings);
        return Reader::of_file(path, std::move(made.config)).read_from(std::move(made.tokenizer));
    }
    Reader reader = Reader::of_file(path, settings);
    if (!path.ends_with(".json")) return reader.read_model(path);
    return reader.read_from(read_json_file(path, {.bytes = limits::tokenizer_json_bytes}));
}

}  // namespace

ExportedTokenizer tokenizer_json_of_folder(const std::string& folder, const std::string& bytes) {
    ExportedTokenizer made = tokenizer_json_of_model(bytes);
    if (made.obstacle.empty() && is_folder(folder)) Reader(folder, Json::object()).add_missing_tokens(made.json);
    return made;
}

Json settings_of(const TokenAdditions& additions, const Tokenizer& tokenizer) {
    Json settings = Json::object(), decoder = Json::object(), special = Json::array();
    std::set<std::string> known;
    const auto add = [&](const std::string& content, bool is_special) {
        if (tokenizer.piece_id(content) || !known.insert(content).second) return;
        decoder[std::to_string(tokenizer.vocab_size() + static_cast<int32_t>(decoder.size()))] = {
            {"content", content},   {"special", is_special}, {"normalized", false},
            {"single_word", false}, {"lstrip", false},       {"rstrip", false}};
    };
    for (const char* role : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
        const auto token = additions.roles.find(role);
        if (token == additions.roles.end()) continue;
        add(token->second, true);
        settings[role] = token->second;
    }
    for (const std::string& token : additions.special) {
        add(token, true);
        special.push_back(token);
    }
    for (const std::string& token : additions.plain) add(token, false);
    if (!decoder.empty()) settings[decoder_key] = decoder;
    if (!special.empty()) settings["additional_special_tokens"] = special;
    return settings;
}

void add_settings(Json& config, const Json& settings) {
    for (const auto& [key, value] : settings.items()) {
        Json& own = config[key];
        if (key == decoder_key && own.is_object())
            own.update(value);
        else if (value.is_array() && own.is_array())
            own.insert(own.end(), value.begin(), value.end());
        else
            own = value;
    }
}

void add_tokens(Json& tokenizer_json, const Json& settings) {
    append_missing(tokenizer_json, tokens_of(settings.value(decoder_key, Json::object()), decoder_key));
}

TextFolder read_text_folder(const std::string& path, const TokenAdditions& additions) {
    const auto read = [&](const Json& settings) {
        return is_folder(path) ? Reader(path, settings).read() : read_one_file(path, settings);
    };
    TextFolder text = read(Json::object());
    if (additions.empty()) return text;
    const int32_t before = text.tokenizer->vocab_size();
    text = read(settings_of(additions, *text.tokenizer));
    for (int32_t id = before; id < text.tokenizer->vocab_size(); ++id) text.added.push_back(text.tokenizer->piece(id));
    return text;
}

bool has_tokenizer(const std::string& path) {
    std::error_code error;
    return fs::is_regular_file(path, error) || fs::exists(fs::path(path) / "tokenizer.json", error) ||
           fs::exists(fs::path(path) / "tokenizer.model", error);
}

}  // namespace colonnade
