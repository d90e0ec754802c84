#include "train/folders/adapter_folder.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/io/files.h"
#include "engine/io/json.h"
#include "engine/io/json_keys.h"
#include "engine/io/safetensors.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

constexpr const char *config_name = "/adapter_config.json", *weights_name = "/adapter_model.safetensors";
constexpr std::string_view prefix = "base_model.model.";

// Keys that read_adapter_config reads, and keys that change nothing about trained adapters.
constexpr std::string_view known_keys[] = {"peft_type",
                                           "task_type",
                                           "base_model_name_or_path",
                                           "r",
                                           "lora_alpha",
                                           "lora_dropout",
                                           "use_rslora",
                                           "target_modules",
                                           "modules_to_save",
                                           "bias",
                                           "init_lora_weights",
                                           "inference_mode",
                                           "peft_version",
                                           "revision",
                                           "auto_mapping",
                                           "runtime_config"};
// Details of features that other keys turn on.
constexpr std::string_view details[] = {"megatron_core", "layers_pattern", "qalora_group_size", "eva_config"};

bool is_off(const Json& value) {
    const bool list = value.is_array() || value.is_object() || value.is_string();
    return value.is_null() || value == false || (list && value.empty());
}

/// Refuses every key that is not known, unless it is off: PEFT may have added it after this was written.
void refuse_other_keys(const Json& json, const JsonKeys& keys) {
    for (const auto& [key, value] : json.items())
        if (std::ranges::find(known_keys, key) == std::end(known_keys) &&
            std::ranges::find(details, key) == std::end(details) && !is_off(value))
            keys.refuse(key, "absent or empty: anything else is not supported");
    if (const Json* bias = keys.find("bias"); bias && *bias != "none") keys.refuse("bias", "\"none\"");
}

/// PiSSA, OLoRA, LoftQ, CorDA and others move a part of the base into the fresh adapters, so the adapters fit a base
/// that is in no folder. The ways that are listed here leave the base as it is.
void check_initialization(const JsonKeys& keys) {
    const Json* value = keys.find("init_lora_weights");
    if (!value || value->is_boolean()) return;
    for (const char* name : {"gaussian", "orthogonal", "eva"})
        if (*value == name) return;
    keys.refuse(
        "init_lora_weights",
        "true, false, \"gaussian\", \"orthogonal\" or \"eva\": others change the base as well; PEFT converts such "
        "adapters: save_pretrained(FOLDER, path_initial_model_for_weight_conversion=...)");
}

std::set<std::string> read_targets(const JsonKeys& keys) {
    constexpr const char* key = "target_modules";
    const Json* value = keys.find(key);
    const std::vector<std::string>& known = lora_modules();
    if (value && value->is_string() && value->get<std::string>() == "all-linear") return {known.begin(), known.end()};
    const std::string expected = fmt::format("a list of {}, or \"all-linear\"", fmt::join(known, ", "));
    if (!value || !value->is_array() || value->empty()) keys.refuse(key, expected);
    std::set<std::string> targets;
    for (const Json& item : *value) {
        if (!item.is_string() || std::ranges::find(known, item.get<std::string>()) == known.end())
            keys.refuse(key, expected);
        targets.insert(item.get<std::string>());
    }
    return targets;
}

/// The head that is trained whole beside the adapters, if there is one.
void read_head(const JsonKeys& keys, AdapterConfig& c) {
    const Json* task = keys.find("task_type");
    c.score_head = task && *task == "SEQ_CLS";
    c.lora.head = c.score_head;
    const Json* saved = keys.find("modules_to_save");
    if (!saved || saved->empty()) return;
    // PEFT lists both names for any classifier; our models have only the second.
    const bool score = *saved == Json{"score"} || *saved == Json{"classifier", "score"};
    if (c.score_head && !score) keys.refuse("modules_to_save", "[\"score\"] or absent, with task_type SEQ_CLS");
    if (!c.score_head && *saved != Json{"lm_head"}) keys.refuse("modules_to_save", "[\"lm_head\"] or absent");
    c.lora.head = true;
}

}  // namespace

bool is_adapter_folder(const std::string& folder) {
    return path_exists(folder + config_name);
}

AdapterConfig read_adapter_config(const std::string& folder) {
    const std::string path = folder + config_name;
    if (!path_exists(path)) fail(Exit::data, "{}: not a folder of adapters: adapter_config.json is missing", folder);
    const Json json = read_json_file(path);
    const JsonKeys keys(json, path);
    const Json* type = keys.find("peft_type");
    if (!type || *type != "LORA") keys.refuse("peft_type", "\"LORA\"");
    refuse_other_keys(json, keys);
    check_initialization(keys);
    AdapterConfig c;
    c.lora.rank = keys.integer("r", {}, {.low = 1, .below = LoraSettings::most_rank + 1});
    c.lora.alpha = keys.number("lora_alpha", 8, {.low = 0, .below = 1e9});
    c.lora.dropout = keys.number("lora_dropout", 0, {.low = 0, .below = 1});
    c.lora.rslora = keys.boolean("use_rslora", false);
    c.lora.targets = read_targets(keys);
    read_head(keys, c);
    c.base = keys.text("base_model_name_or_path", "");
    const std::string revision = keys.text("revision", "");
    if (!revision.empty() && !path_exists(c.base)) c.base += '@' + revision;
    return c;
}

void load_adapter(const std::string& folder, const ParameterList& list, const Tensor& flat) {
    const std::string path = folder + weights_name;
    if (!path_exists(path)) fail(Exit::data, "{}: the file is missing", path);
    const SafetensorsReader reader(path);
    std::vector<std::string> problems;
    std::set<std::string> known;
    for (const Parameter& p : list.all()) {
        const std::string name = std::string(prefix) + p.name;
        known.insert(name);
        const TensorInfo* info = reader.find(name);
        if (!info)
            problems.push_back(fmt::format("'{}' {} is missing", name, shape_text(p.shape)));
        else if (info->shape != p.shape)
            problems.push_back(
                fmt::format("'{}' is {}, expected {}", name, shape_text(info->shape), shape_text(p.shape)));
    }
    for (const TensorInfo& info : reader.tensors())
        if (!known.contains(info.name)) problems.push_back(fmt::format("'{}' belongs to no adapter", info.name));
    if (!problems.empty()) {
        const std::string more =
            problems.size() > 1 ? fmt::format("; and {} more problems", problems.size() - 1) : std::string();
        fail(Exit::data, "{}: the tensors do not fit adapter_config.json and the model: {}{}", path, problems.front(),
             more);
    }
    for (const Parameter& p : list.all()) reader.read(*reader.find(std::string(prefix) + p.name), slice_of(flat, p));
}

void remove_adapter(const std::string& folder) {
    if (remove_file(folder + config_name)) sync_path(folder);
    remove_file(folder + weights_name);
}

namespace {

/// Splits org/name@commit: the name, the commit. The commit is empty for anything else.
std::pair<std::string, std::string> name_and_commit(const std::string& base) {
    const size_t at = base.rfind('@');
    const std::string commit = at == base.npos ? "" : base.substr(at + 1);
    if (commit.size() != 40 || commit.find_first_not_of("0123456789abcdef") != commit.npos) return {base, ""};
    return {base.substr(0, at), commit};
}

}  // namespace

void write_adapter(const std::string& folder, const AdapterConfig& c, const ParameterList& list, const Tensor& flat) {
    std::vector<NamedTensor> tensors = named_tensors(list, flat);
    for (NamedTensor& t : tensors) t.name = std::string(prefix) + t.name;
    const bool score = list.find(Role::score_head) != nullptr;
    remove_adapter(folder);
    write_safetensors_file(folder + weights_name, tensors);
    const auto [base, commit] = name_and_commit(c.base);
    sync_path(folder);  // the name of the weights is on disk before that of the config
    // All keys that PEFT writes, defaults included: other readers have other defaults.
    const Json config = {
        {"peft_type", "LORA"},
        {"task_type", score ? "SEQ_CLS" : "CAUSAL_LM"},
        {"base_model_name_or_path", base.empty() ? Json(nullptr) : Json(base)},
        {"revision", commit.empty() ? Json(nullptr) : Json(commit)},
        {"r", c.lora.rank},
        {"lora_alpha",
         std::floor(c.lora.alpha) == c.lora.alpha ? Json(static_cast<int64_t>(c.lora.alpha)) : Json(c.lora.alpha)},
        {"lora_dropout", c.lora.dropout},
        {"use_rslora", c.lora.rslora},
        {"target_modules", c.lora.targets},
        {"bias", "none"},
        {"fan_in_fan_out", false},
        {"inference_mode", true},
        {"init_lora_weights", true},
        {"modules_to_save", c.lora.head ? Json::array({score ? "score" : "lm_head"}) : Json(nullptr)},
        {"layers_to_transform", nullptr},
        {"layers_pattern", nullptr},
        {"rank_pattern", Json::object()},
        {"alpha_pattern", Json::object()},
        {"use_dora", false}};
    write_file_atomically(folder + config_name, config.dump(2) + "\n");
}

}  // namespace colonnade
