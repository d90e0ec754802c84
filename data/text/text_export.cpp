// export_text: the tokenizer files of an exported model.

#include <filesystem>
#include <map>

#include "data/text/gguf_tokenizer.h"
#include "data/text/sentencepiece_export.h"
#include "data/text/text_folder.h"
#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/own_file.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr const char* copied[] = {"tokenizer.model",
                                  "tokenizer.json",
                                  "tokenizer_config.json",
                                  "special_tokens_map.json",
                                  "added_tokens.json",
                                  "chat_template.jinja",
                                  "vocab.json",
                                  "merges.txt",
                                  "vocab.txt"};
constexpr const char* template_folder = "chat_templates";

using Files = std::map<std::string, std::string>;  // contents by name

/// Names of the files that a folder has, relative to it, with templates as read_text_folder() finds them. Each is the
/// folder's own.
std::vector<std::string> copied_files(const fs::path& folder) {
    std::vector<std::string> names;
    for (const char* name : copied)
        if (path_exists(folder / name)) names.emplace_back(name);
    if (is_folder(folder / template_folder))
        for (const std::string& name : names_in(folder / template_folder))
            if (fs::path(name).extension() == ".jinja") names.push_back(fmt::format("{}/{}", template_folder, name));
    for (const std::string& name : names) own_file(folder.string(), (folder / name).string());
    return names;
}

void read_files(const fs::path& folder, Files& files) {
    for (const std::string& name : copied_files(folder)) files[name] = read_file((folder / name).string());
}

/// The settings with which transformers builds a tokenizer that gives the same ids.
Json new_config(const Tokenizer& tokenizer) {
    const auto token = [&](std::optional<int32_t> id) { return id ? Json(tokenizer.piece(*id)) : Json(nullptr); };
    return {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false},
            {"bos_token", token(tokenizer.bos())},          {"eos_token", token(tokenizer.eos())},
            {"unk_token", token(tokenizer.unk())},          {"pad_token", token(tokenizer.pad())}};
}

/// The model itself no longer says what its special tokens are.
void settle_with_json(Json& config, const Json& map, const Tokenizer& tokenizer) {
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    const Json complete = new_config(tokenizer);
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"})
        if (!config.contains(key) && !map.contains(key)) config[key] = complete[key];
}

/// Without a tokenizer.json transformers has to read the model itself, as its class for Llama 2 does.
void settle_without_json(Json& config, const Tokenizer& tokenizer) {
    config["tokenizer_class"] = "LlamaTokenizer";
    config["legacy"] = false;
    config["add_prefix_space"] = tokenizer.spaces_documents();
    config["add_bos_token"] = !tokenizer.document_prefix().empty();
    config["add_eos_token"] = false;
}

/// Adds tokens and roles (settings_of) to the files beside tokenizer_config.json.
void add_to_files(Files& files, const Json& added) {
    const auto edit = [&](const char* name, auto&& change) {
        Json json = parse_json(files[name], name);
        change(json);
        files[name] = json.dump(2) + "\n";
    };
    if (files.contains("tokenizer.json")) edit("tokenizer.json", [&](Json& json) { add_tokens(json, added); });
    if (files.contains("special_tokens_map.json"))
        edit("special_tokens_map.json", [&](Json& json) {
            for (const auto& [key, value] : added.items())
                if (value.is_string()) json[key] = value;
        });
    if (files.contains("added_tokens.json") || !files.contains("tokenizer.json")) {
        if (!files.contains("added_tokens.json")) files["added_tokens.json"] = "{}";
        edit("added_tokens.json", [&](Json& json) {
            for (const auto& [id, token] : added.value("added_tokens_decoder", Json::object()).items())
                json[token.at("content").template get<std::string>()] = std::stoi(id);
        });
    }
}

/// Adds what the source lacks.
void complete(const TextExport& r, const Json& added, Files& files, std::vector<std::string>& notices) {
    const bool has_config = files.contains("tokenizer_config.json");
    Json config = has_config ? parse_json(files["tokenizer_config.json"], r.source + "/tokenizer_config.json")
                             : new_config(*r.tokenizer);
    bool changed = !has_config;
    if (!files.contains("tokenizer.json") && files.contains("tokenizer.model")) {
        ExportedTokenizer made = tokenizer_json_of_folder(r.source, files["tokenizer.model"]);
        if (made.obstacle.empty()) {
            const std::vector<int32_t>& prefix = r.tokenizer->document_prefix();  // tokenizer_config.json may change it
            made.json["post_processor"] =
                prefix.empty() ? Json() : leading_token_json(r.tokenizer->piece(prefix.front()), prefix.front());
            files["tokenizer.json"] = made.json.dump(2);
            const auto map = files.find("special_tokens_map.json");
            settle_with_json(config, map == files.end() ? Json::object() : parse_json(map->second, map->first),
                             *r.tokenizer);
            changed = true;
        } else {
            if (!has_config) settle_without_json(config, *r.tokenizer);
            notices.push_back(
                fmt::format("{}: no tokenizer.json is written: {}; transformers may split rare texts differently",
                            r.folder, made.obstacle));
        }
    }
    if (!added.empty()) {
        add_settings(config, added);
        add_to_files(files, added);
        changed = true;
    }
    if (r.chat_template) {
        config["chat_template"] = exported_source(*r.chat_template, *r.tokenizer);
        changed = true;
        std::erase_if(files, [](const auto& file) {
            return file.first == "chat_template.jinja" || file.first.starts_with(template_folder);
        });
    }
    if (changed) files["tokenizer_config.json"] = config.dump(2) + "\n";
}

Files source_files(const TextExport& r) {
    Files files;
    std::error_code error;
    if (fs::is_directory(r.source, error)) {
        read_files(r.source, files);
    } else if (is_gguf_file(r.source)) {
        const GgufTokenizer made = gguf_tokenizer(GgufReader(r.source));
        Json config = made.config;
        config["tokenizer_class"] = "PreTrainedTokenizerFast";
        config["clean_up_tokenization_spaces"] = false;
        files["tokenizer.json"] = made.tokenizer.dump(2);
        files["tokenizer_config.json"] = config.dump(2) + "\n";
    } else {
        files[r.source.ends_with(".json") ? "tokenizer.json" : "tokenizer.model"] = read_file(r.source);
    }
    return files;
}

}  // namespace

void check_exported_files(const std::string& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) return;
    copied_files(folder);
    for (const char* name : {"generation_config.json", "tokenizer_config.json"}) {
        const std::string path = (fs::path(folder) / name).string();
        if (path_exists(path) && !read_json_file(own_file(folder, path)).is_object())
            fail(Exit::data, "{}: expected an object of JSON", path);
    }
}

std::vector<std::string> export_text(const TextExport& r) {
    Files files;
    std::vector<std::string> notices;
    // Without a tokenizer a GGUF file, or one that cannot be read, leaves none.
    std::error_code error;
    if (!r.source.empty() && (r.tokenizer || fs::is_directory(r.source, error))) files = source_files(r);
    const Json added =
        r.additions.empty() ? Json::object() : settings_of(r.additions, *read_text_folder(r.source).tokenizer);
    if (r.tokenizer) complete(r, added, files, notices);
    for (const char* name : copied)
        if (!files.contains(name)) remove_file(r.folder + "/" + name);  // of an older export
    remove_tree(r.folder + "/" + template_folder);
    for (const auto& [name, content] : files) {
        const std::string path = (fs::path(r.folder) / name).string();
        make_folders(parent_of(path));
        write_file_atomically(path, content);
    }
    return notices;
}

}  // namespace colonnade
