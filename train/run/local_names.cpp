#include "train/run/local_names.h"

#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <filesystem>

#include "engine/io/files.h"
#include "engine/io/home_path.h"

namespace colonnade {
namespace {

bool fits(const std::string& path, std::initializer_list<const char*> patterns) {
    return std::ranges::any_of(patterns, [&](const char* p) { return ::fnmatch(p, path.c_str(), FNM_PATHNAME) == 0; });
}

bool is_text_file(const std::string& path) {
    return fits(path,
                {"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                 "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
                 "chat_template.json", "additional_chat_templates/*.jinja", "chat_templates/*.jinja"});
}

bool is_weights_file(const std::string& path) {
    return fits(path, {"model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"});
}

bool is_adapter_file(const std::string& path) {
    return fits(path, {"adapter_config.json", "adapter_model.safetensors"});
}

bool has_text(const std::string& path, std::string part) {
    std::string text = path;
    for (std::string* s : {&text, &part})
        std::ranges::transform(*s, s->begin(), [](unsigned char c) { return std::tolower(c); });
    return text.find(part) != text.npos;
}

/// The GGUF file that the name means.
std::vector<std::string> choose_gguf(const std::vector<std::string>& listed, const HubName& name) {
    std::vector<std::string> found;
    for (const std::string& path : listed)
        if (path.ends_with(".gguf") && !has_text(path, "mmproj") && has_text(path, name.path)) found.push_back(path);
    if (found.size() == 1) return found;
    std::vector<std::string> exact;  // Q4_K is a part of Q4_K_M
    for (const std::string& path : found)
        if (has_text(path, "-" + name.path + ".gguf") || has_text(path, "." + name.path + ".gguf"))
            exact.push_back(path);
    if (exact.size() == 1 && !name.path.empty()) return exact;
    const std::vector<std::string>& shown = found.empty() ? listed : found;
    const size_t count = std::min<size_t>(shown.size(), 12);
    fail(Exit::data, "{}: {}; give one file, {}/FILE.gguf, of: {}{}", name.text(),
         found.empty() ? "has no such GGUF file" : "means several GGUF files", name.repository,
         fmt::join(shown.begin(), shown.begin() + static_cast<std::ptrdiff_t>(count), ", "),
         count < shown.size() ? ", ..." : "");
}

/// README.md of a data set; empty if it has none. Pins `name` to its commit.
std::string fetch_readme(const HubSettings& settings, HubName& name, std::vector<std::string>& notices) {
    const std::string file = "README.md";
    bool listed = false;
    const auto look = [&](const std::vector<HubFile>& files) {
        listed = std::ranges::find(files, file, &HubFile::path) != files.end();
        return std::vector<std::string>();
    };
    HubSnapshot snapshot = fetch(settings, {name, look});
    name.revision = snapshot.commit;
    notices.insert(notices.end(), snapshot.notices.begin(), snapshot.notices.end());
    if (!listed) return "";
    try {
        snapshot = fetch(settings, {name, [&](const auto&) { return std::vector<std::string>{file}; }});
    } catch (const Error& e) {  // a cache that another program filled may lack it
        notices.push_back(fmt::format("{}: what README.md says about splits is unknown: {}", name.text(), e.what()));
        return "";
    }
    return read_file(snapshot.folder + "/" + file, limits::readme_bytes);
}

}  // namespace

std::vector<std::string> choose_model_files(const std::vector<std::string>& listed, const HubName& name,
                                            ModelFiles files) {
    if (std::ranges::find(listed, name.path) != listed.end()) return {name.path};
    const std::string folder = name.path.empty() ? "" : name.path + "/";
    std::vector<std::string> chosen, inside;
    bool text = false, weights = false, adapters = false, gguf = false, any = folder.empty();
    for (const std::string& path : listed) {
        if (!path.starts_with(folder)) continue;
        any = true;
        const std::string within = path.substr(folder.size());
        const bool is_text = is_text_file(within), is_weights = is_weights_file(within),
                   is_adapter = is_adapter_file(within);
        if (is_text || (is_weights && files == ModelFiles::whole) || (is_adapter && files != ModelFiles::tokenizer))
            chosen.push_back(path);
        text = text || within == "tokenizer.json" || within == "tokenizer.model";
        weights = weights || is_weights, adapters = adapters || within == "adapter_config.json";
        gguf = gguf || within.ends_with(".gguf");
        inside.push_back(within);
    }
    if (!any) return choose_gguf(listed, name);
    const bool enough = files == ModelFiles::whole       ? weights || adapters
                        : files == ModelFiles::tokenizer ? text
                                                         : adapters;
    if (enough) return chosen;
    if (gguf && files != ModelFiles::adapter) return choose_gguf(listed, name);
    const auto pickle = std::ranges::find_if(inside, [](const std::string& path) {
        return path.ends_with(".bin") || path.ends_with(".bin.index.json") || path.ends_with(".pth");
    });
    fail(Exit::data, "{}: has no {}{}", name.text(),
         files == ModelFiles::whole       ? "model.safetensors, no adapter_config.json and no GGUF file"
         : files == ModelFiles::tokenizer ? "tokenizer.json and no tokenizer.model"
                                          : "adapter_config.json",
         pickle == inside.end() || files != ModelFiles::whole
             ? ""
             : fmt::format("; {} is a PyTorch pickle, which can run code when it is read: transformers converts it, "
                           "AutoModelForCausalLM.from_pretrained(NAME).save_pretrained(FOLDER)",
                           *pickle));
}

std::string LocalNames::find(const std::string& text, RepositoryKind kind, const std::string& use,
                             const Choose& choose) {
    const std::string given = expand_home(text), key = use + given;
    if (given.empty()) return given;
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    HubSnapshot snapshot;
    std::string pinned;  // what the other ranks take; empty: a path
    const auto fetch_name = [&](const std::string& of_hub) {
        HubSettings settings = hub_settings();
        if (!ranks_.first())
            settings.say = [](const std::string&) {}, settings.progress.write = [](std::string_view) {};
        HubName name = *parse_hub_name(of_hub, kind);
        const bool whole_data = kind == RepositoryKind::dataset && name.path.empty();
        const std::string readme = whole_data ? fetch_readme(settings, name, notices_) : "";
        const HubName named = name;
        snapshot =
            fetch(settings, {name, [&](const std::vector<HubFile>& files) { return choose(files, named, readme); }});
    };
    std::optional<HubName> name;
    ranks_.together("names", [&] {
        if (!ranks_.first() || !(name = parse_hub_name(given, kind))) return;
        fetch_name(given);
        name->revision = snapshot.commit;
        pinned = "hf://" + name->text();
    });
    pinned = ranks_.broadcast("names", pinned);
    if (pinned.empty()) return known_[key] = given;
    name = parse_hub_name(pinned, kind);
    ranks_.in_turn("names", [&] {
        if (!ranks_.first()) fetch_name(pinned);
    });
    std::string path = snapshot.folder;
    if (kind == RepositoryKind::dataset && !name->path.empty())
        path += "/" + name->path;
    else if (kind == RepositoryKind::model && snapshot.chosen.size() == 1 && snapshot.chosen[0].ends_with(".gguf"))
        path += "/" + (name->path = snapshot.chosen[0]);
    else if (!name->path.empty())
        path += "/" + name->path;
    names_[path] = (given.starts_with("hf://") ? "hf://" : "") + name->text();
    notices_.insert(notices_.end(), snapshot.notices.begin(), snapshot.notices.end());
    notices_.push_back(fmt::format("{} is {}", text, abbreviate_home(path)));
    return known_[key] = path;
}

std::string LocalNames::model(const std::string& name, ModelFiles files) {
    const char* const use = files == ModelFiles::whole       ? "model "
                            : files == ModelFiles::tokenizer ? "tokenizer "
                                                             : "adapter ";
    return find(name, RepositoryKind::model, use, [&](const auto& listed, const HubName& of, const std::string&) {
        std::vector<std::string> paths;
        for (const HubFile& file : listed) paths.push_back(file.path);
        return choose_model_files(paths, of, files);
    });
}

std::string LocalNames::data(const DatasetSpec& set) {
    const std::optional<Split> split = set.split.empty() ? Split{} : parse_split(set.split);
    return find_data(set.path, "data " + set.split + " ", split.value_or(Split{}));
}

std::string LocalNames::training_data(DatasetSpec& set) {
    if (!set.split.empty()) return data(set);
    Split train = *parse_split("train");
    train.if_several = true;
    const std::string path = find_data(set.path, "training data ", train);
    std::error_code none;
    if (!std::filesystem::is_directory(path, none)) return path;
    // What else of a repository is in the cache must not matter.
    const std::set<std::string> splits = splits_of_folder(path);
    if (!splits.contains("train") || (splits.size() == 1 && !names_.contains(path))) return path;
    set.split = "train";
    if (splits.size() > 1)
        notices_.push_back(fmt::format("{}: split train is taken, of {}", set.path, fmt::join(splits, ", ")));
    return path;
}

std::string LocalNames::find_data(const std::string& path, const std::string& use, const Split& split) {
    return find(path, RepositoryKind::dataset, use,
                [&](const std::vector<HubFile>& listed, const HubName& of, const std::string& readme) {
                    std::vector<std::string> paths;
                    for (const HubFile& file : listed) paths.push_back(file.path);
                    return choose_data_files(paths, of.path, split, of.text(),
                                             read_data_card(readme, of.text() + "/README.md"));
                });
}

namespace {

/// A run that resumes keeps the commits that it began with, which its config.yaml holds. Returns a notice for each.
std::vector<std::string> keep_commits(Config& c) {
    const std::string path = c.output_dir + "/config.yaml";
    std::error_code none;
    std::vector<std::string> notices;
    if (c.resume_from_checkpoint.empty() || !std::filesystem::exists(path, none)) return notices;
    Config then = parse_config(read_file(path, limits::yaml_bytes), path).config;
    const std::vector<std::string*> given = c.names(), before = then.names();
    const auto parsed = [&](const std::string& name, size_t i) {
        return parse_hub_name(name, i < Config::model_names ? RepositoryKind::model : RepositoryKind::dataset);
    };
    for (size_t i = 0; i < given.size(); ++i)
        for (size_t j = 0; j < before.size(); ++j) {
            const auto now = parsed(*given[i], i), old = parsed(*before[j], j);
            const bool same = now && old && now->kind == old->kind && now->repository == old->repository &&
                              (now->path == old->path ||
                               (old->path.ends_with(".gguf") && old->path.find(now->path) != old->path.npos));
            if (!same || now->revision != "main" || !is_commit(old->revision)) continue;
            notices.push_back(fmt::format("{}: the run began with commit {} and keeps it", *given[i], old->revision));
            *given[i] = *before[j];
            break;
        }
    return notices;
}

}  // namespace

std::vector<std::string> resolve_names(Config& c, const Ranks& ranks) {
    LocalNames local(ranks);
    std::vector<std::string> notices = keep_commits(c);
    const std::string model = c.model_name_or_path;
    c.model_name_or_path = local.model(model);
    // The whole model has its tokenizer.
    c.tokenizer_name_or_path = c.tokenizer_name_or_path == model
                                   ? c.model_name_or_path
                                   : local.model(c.tokenizer_name_or_path, ModelFiles::tokenizer);
    c.ref_model_name_or_path = local.model(c.ref_model_name_or_path);
    c.adapter_name_or_path = local.model(c.adapter_name_or_path, ModelFiles::adapter);
    for (std::vector<DatasetSpec>* sets : {&c.datasets, &c.eval_datasets})
        for (DatasetSpec& set : *sets) set.path = sets == &c.datasets ? local.training_data(set) : local.data(set);
    c.hub_names = local.names();
    notices.insert(notices.end(), local.notices().begin(), local.notices().end());
    return notices;
}

}  // namespace colonnade
