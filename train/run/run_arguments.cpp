#include "train/run/run_arguments.h"

#include <algorithm>
#include <filesystem>

#include "engine/io/home_path.h"
#include "train/config/values.h"
#include "train/run/local_names.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

bool ends_in(const std::string& name, std::initializer_list<const char*> ends) {
    return std::ranges::any_of(ends, [&](const char* end) { return name.ends_with(end); });
}

bool is_stream(const std::string& name) {
    std::error_code none;
    const fs::file_type type = fs::status(expand_home(name), none).type();
    return type == fs::file_type::fifo || type == fs::file_type::character || name == "/dev/stdin" ||
           name.starts_with("/dev/fd/");
}

bool names_config(const std::string& name) {
    return ends_in(name, {".yaml", ".yml"}) || is_stream(name);
}

/// "learning_rate=1e-5", not "data/a=b.jsonl".
bool is_assignment(const std::string& text) {
    const size_t equals = text.find('=');
    return equals != text.npos && equals > 0 &&
           std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(equals), [](unsigned char c) {
               return std::isalnum(c) || c == '_' || c == '-' || c == '.' || c == '[' || c == ']';
           });
}

constexpr const char* expected = "expected CONFIG.yaml, or MODEL DATA";

/// The names are a model and at least one data set, as far as their looks tell.
void check_names(const std::vector<std::string>& names) {
    std::error_code none;
    if (names.empty()) fail(Exit::config, "no config and no model: {}", expected);
    for (const std::string& name : names)
        if (names_config(name))
            fail(Exit::config,
                 "{} is a config, which names model and data itself; found beside it '{}': {}; or set keys: "
                 "model_name_or_path=MODEL 'datasets[0].path=DATA'",
                 name, name == names[0] ? names[1] : names[0], expected);
    const std::string& model = names[0];
    const std::string path = expand_home(model);
    if (is_data_file(model)) fail(Exit::config, "{} is a data file: {}, the model first", model, expected);
    if (fs::is_regular_file(path, none) && !ends_in(model, {".gguf"}))
        fail(Exit::config,
             "{} is neither a config (.yaml or .yml) nor a model (a folder, a GGUF file, a name on a hub): {}", model,
             expected);
    if (names.size() == 1)
        fail(Exit::config, "{}: a model without data: {}; DATA is a file, a folder, a glob or a name on a hub", model,
             expected);
    if (!fs::exists(path, none) && !parse_hub_name(model, RepositoryKind::model))
        fail(Exit::data, "{}: no such model on this machine, and no name on the hub, which is org/name", model);
    for (size_t i = 1; i < names.size(); ++i) {
        const std::string local = expand_home(names[i]);
        if (names[i].ends_with(".gguf") || fs::exists(local + "/config.json", none))
            fail(Exit::config, "{} is a model, as {} is: {}", names[i], model, expected);
    }
}

/// The last part of a name, without endings: "data/chats.jsonl.gz" is "chats".
std::string short_name(const std::string& name) {
    std::string text = name.substr(0, name.find_last_not_of('/') + 1);
    if (text.find('@') != text.npos && text.find('/') < text.find('@')) text.erase(text.find('@'));
    text = text.substr(text.rfind('/') + 1);
    for (const char* end : {".gz", ".zst", ".jsonl", ".ndjson", ".json", ".parquet", ".gguf"})
        if (text.ends_with(end)) text.erase(text.size() - std::string(end).size());
    std::string safe;
    for (const char c : text)
        safe += std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-' ? c : '-';
    while (safe.starts_with('.') || safe.starts_with('-')) safe.erase(0, 1);
    return safe.empty() ? "data" : safe;
}

/// The config that the names stand for.
std::string yaml_of(const std::vector<std::string>& names, const std::string& keys) {
    std::string yaml = "model_name_or_path: " + yaml_text(names[0]) + "\ndatasets:\n";
    for (size_t i = 1; i < names.size(); ++i) yaml += "  - path: " + yaml_text(names[i]) + '\n';
    return yaml + "output_dir: " + yaml_text(default_output_dir(names[0], names[1])) + '\n' + keys;
}

constexpr const char* place = "command line";

/// Keys that would replace what the names say.
void check_keys(const WrittenConfig& written, const std::vector<std::string>& names) {
    if (written.config.model_name_or_path != names[0])
        fail(Exit::config, "two models: {} and model_name_or_path={}; give one", names[0],
             written.config.model_name_or_path);
    for (size_t i = 1; i < names.size(); ++i)
        if (i > written.config.datasets.size() || written.config.datasets[i - 1].path != names[i])
            fail(Exit::config, "the data is given twice: {}, and by the key datasets; give it once", names[i]);
}

}  // namespace

std::string yaml_text(const std::string& text) {
    YAML::Emitter out;
    ValueFormat<std::string>::write(out, text);
    return out.c_str();
}

std::string default_output_dir(const std::string& model, const std::string& data) {
    return "runs/" + short_name(model) + '-' + short_name(data);
}

RunArguments split_run_arguments(const std::vector<std::string>& arguments) {
    RunArguments split;
    for (size_t i = 0; i < arguments.size(); ++i) {
        const std::string& text = arguments[i];
        const bool dashed = text.starts_with("--");
        if (!dashed && !is_assignment(text)) {
            split.names.push_back(text);
            continue;
        }
        split.keys.push_back(text);
        const bool has_next = i + 1 < arguments.size() && !arguments[i + 1].starts_with("--");
        if (dashed && text.find('=') == text.npos && has_next) split.keys.push_back(arguments[++i]);
    }
    return split;
}

RowsFound look_at_rows(const DatasetSpec& local) {
    for (const RowKind kind : {RowKind::taught, RowKind::labelled, RowKind::scored, RowKind::preferences}) {
        try {
            const std::string type = RowReader(local, kind).type();
            if (kind == RowKind::taught) return {Stage::distill, type};
            if (kind == RowKind::labelled) return {Stage::kto, type};
            if (kind == RowKind::preferences) return {type == "ranked" ? Stage::rm : Stage::dpo, type};
            if (type != "prompt_completion") return {Stage::grpo, type};  // texts to learn may have a score, too
        } catch (const Error& e) {  // these rows are of another kind, or cannot be read, which comes up again
            if (e.exit() != Exit::data && e.exit() != Exit::config) throw;
        }
    }
    return {Stage::sft, RowReader(local, RowKind::texts).type()};
}

LoadedConfig load_run(const RunArguments& a, const Ranks& ranks) {
    if (a.names.size() == 1 && names_config(a.names[0])) return load_config(a.names[0], a.keys);
    check_names(a.names);
    const WrittenConfig written = read_written(yaml_of(a.names, ""), place, a.keys);
    check_keys(written, a.names);
    std::string keys, notice;
    if (!written.given.contains("stage")) {
        DatasetSpec data = written.config.datasets[0];
        data.path = LocalNames(ranks).training_data(data);
        const RowsFound found = look_at_rows(data);
        keys = fmt::format("stage: {}\n", spell(found.stage));
        notice = fmt::format("stage: {}, because the rows have the form {}", spell(found.stage), found.type);
    }
    LoadedConfig loaded = parse_config(yaml_of(a.names, keys), place, a.keys);
    if (loaded.config.output_dir == default_output_dir(a.names[0], a.names[1]))
        notice += fmt::format("{}output_dir: {}", notice.empty() ? "" : "; ", loaded.config.output_dir);
    if (!notice.empty()) loaded.notices.push_back(notice);
    return loaded;
}

double timeout_of_ranks(const RunArguments& a) {
    if (a.names.size() == 1 && names_config(a.names[0])) return load_config(a.names[0], a.keys).config.ddp_timeout;
    check_names(a.names);
    return read_written(yaml_of(a.names, ""), place, a.keys).config.ddp_timeout;
}

}  // namespace colonnade
