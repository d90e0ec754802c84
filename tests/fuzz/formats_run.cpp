// Files of a run: its config, token stores, checkpoints, the log that a resumed run continues; what a hub answers.

#include <filesystem>

#include "data/store/store.h"
#include "engine/hub/hub_cache.h"
#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/sha256.h"
#include "tests/fuzz/formats.h"
#include "tests/support/file_test.h"
#include "tests/support/tiny_model.h"
#include "train/config/config.h"
#include "train/folders/checkpoint.h"
#include "train/log/metrics_log.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr const char* run_config =
    R"(model: {hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4}
tokenizer_name_or_path: t
datasets: [{path: a, columns: {text: b}}]
learning_rate: 1e-3
max_steps: 3
)";
constexpr const char* lora_config = R"(# a comment
model_name_or_path: &model "m"
finetuning_type: lora
lora_rank: 8
lora_target: [q_proj, v_proj]
stage: dpo
datasets:
  - path: a.jsonl
    split: train[:10%]
    weight: 0.5
  - {path: b, chat_template: |
      {{ messages }}
    }
report_to: [jsonl, tensorboard]
save_strategy: steps
save_steps: 10
num_train_epochs: 1.5
)";

Format yaml_format(const std::string&) {
    return {.file = "config.yaml",
            .seeds = {run_config, lora_config},
            .read =
                [](const auto&, const auto& file) {
                    const LoadedConfig loaded = parse_config(read_file(file), "config.yaml");
                    (void)parse_config(resolved_yaml(loaded.config), "resolved");
                },
            .words = {":",
                      "-",
                      "[",
                      "]",
                      "{",
                      "}",
                      ",",
                      "\n",
                      "\n  ",
                      "|\n",
                      ">-\n",
                      "&a",
                      "*a",
                      "<<: *a",
                      "!!str",
                      "'",
                      "\"",
                      "#",
                      "? ",
                      "---\n",
                      "%YAML",
                      "null",
                      "~",
                      "yes",
                      "1e3",
                      "-1",
                      "0",
                      ".nan",
                      ".inf",
                      "1e999",
                      "9223372036854775808",
                      "0x10",
                      "\t",
                      "model",
                      "datasets",
                      "max_steps",
                      "learning_rate",
                      "lr_scheduler_type: wsd",
                      "stage: rm",
                      "zero_stage: 1",
                      "packing: false",
                      "val_size: 0.1"}};
}

std::string store_content(const std::string& scratch) {
    TokenStore store;
    store.statistics.files.push_back({.path = "rows.jsonl", .dataset = 0});
    store.add({.sequences = {{.tokens = {1, 2, 3}, .learned = {{1, 3, 1}}},
                             {.shared = 2, .tokens = {4, 5}, .learned = {{1, 2, 0.5f}, {3, 4, 1}}}},
               .pairs = {{0, 1, 0.5f}}},
              0, 1);
    store.count_samples();
    store.write(scratch + "/written.h5", "key");
    return slurp(scratch + "/written.h5");
}

Format store_format(const std::string& scratch) {
    return {.file = "store.h5", .seeds = {store_content(scratch)}, .read = [](const auto&, const auto& file) {
                (void)TokenStore::open(file, "key", 100);
            }};
}

/// HDF5 as such, without the hashes of a store in the way.
Format hdf5_format(const std::string& scratch) {
    return {.file = "any.h5", .seeds = {store_content(scratch)}, .read = [](const auto&, const auto& file) {
                const Hdf5Reader reader(file);
                for (const char* name : {"format", "key", "payload_sha256"})
                    if (reader.has_attribute(name)) (void)reader.text_attribute(name);
                for (const char* name : {"format_version", "samples"})
                    if (reader.has_attribute(name)) (void)reader.int_attribute(name);
                if (reader.has("tokens")) (void)reader.template read_all<int32_t>("tokens");
                if (reader.has("weights")) (void)reader.template read_all<float>("weights");
                if (reader.has("sample_begins")) (void)reader.template read_all<int64_t>("sample_begins");
            }};
}

ModelConfig checkpoint_shape() {
    ModelConfig config = tiny_config(Architecture::llama);
    config.num_hidden_layers = 1;
    config.windows = {0};
    return config;
}

/// The manifest's own hash, and those of all files that it lists and that are there.
void mend_manifest(const std::string& folder) {
    const std::string path = folder + "/manifest.json";
    Json manifest = parse_json(slurp(path), path);
    for (Json& file : manifest["body"]["files"]) {
        const std::string name = folder + "/" + file["name"].get<std::string>();
        if (!fs::exists(name)) continue;
        const std::string content = slurp(name);
        file["bytes"] = content.size();
        file["pieces"] = Json::array({{{"bytes", content.size()}, {"sha256", sha256(content)}}});
    }
    manifest["sha256"] = sha256(manifest["body"].dump());
    spill(path, manifest.dump());
}

void read_checkpoint(const std::string& folder) {
    static const auto learner = tiny_learner(checkpoint_shape(), DType::f32, 1, 8);
    (void)checkpoint_model(check_checkpoint(folder));
    (void)load_checkpoint(folder, *learner);
}

/// A checkpoint of which one file is mutated.
Format checkpoint_format(const std::string& scratch, const std::string& file) {
    const std::string folder = scratch + "/checkpoint";
    const auto learner = tiny_learner(checkpoint_shape(), DType::f32, 1, 8);
    TrainerState state;
    state.step = 3;
    state.data_key = "key";
    state.recent = {{1, 2.0, 0.5}};
    state.config_yaml = "seed: 42\n";
    save_checkpoint(folder, *learner, state);
    Format format{.file = file,
                  .seeds = {slurp(folder + "/" + file)},
                  .read = [](const auto& from, const auto&) { read_checkpoint(from); },
                  .beside = folder,
                  .mend = mend_manifest};
    if (file.ends_with(".json")) format.structure = json_mutation();
    if (file != "manifest.json") return format;
    format.mend = [](const std::string& at) {
        try {
            const std::string path = at + "/manifest.json";
            Json manifest = parse_json(slurp(path), path);
            manifest.at("sha256") = sha256(manifest.at("body").dump());
            spill(path, manifest.dump());
        } catch (const std::exception&) {  // no manifest any more
        }
    };
    return format;
}

Format metrics_format(const std::string&) {
    return {.file = "metrics.jsonl",
            .seeds = {metrics_line(10, 0.25, {{"loss", 2.5}, {"grad_norm", 1}}) +
                      metrics_line(11, 0.5, {{"eval_loss", 2}}) +
                      metrics_line(12, 0.5, {{"loss", std::nan("")}}, {"a.jsonl:7"})},
            .read =
                [](const auto&, const auto& file) {
                    (void)log_bytes_until(file, 11);
                    (void)read_series(file, "loss");
                },
            .structure = json_lines_mutation()};
}

constexpr const char* hub_tree =
    R"([{"type": "directory", "oid": "0123456789abcdef0123456789abcdef01234567", "size": 0, "path": "data"},
{"type": "file", "oid": "0123456789abcdef0123456789abcdef01234567", "size": 12, "path": "a/config.json"},
{"type": "file", "oid": "0123456789abcdef0123456789abcdef01234567", "size": 9, "path": "m.safetensors",
"lfs": {"oid": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "size": 9}}])";

/// A page of a repository's list of files, and the same list as the cache keeps it.
Format hub_format(const std::string&) {
    return {.file = "tree.json",
            .seeds = {hub_tree},
            .read =
                [](const auto& folder, const auto& file) {
                    const std::vector<HubFile> files = parse_tree(read_file(file), file);
                    HubSettings settings;
                    settings.cache = folder;
                    const HubCache cache(settings, {.repository = "org/name"});
                    cache.write_tree(std::string(40, 'a'), files);
                    const auto read = cache.read_tree(std::string(40, 'a'));
                    for (const HubFile& f : files) require(is_inside(f.path), "a path leads out");
                    require(read && read->size() <= files.size(), "the cache lost the list");
                },
            .structure = json_mutation(),
            .words = {"../", "/", "\\u0000", "type", "file", "oid", "lfs", "size", "-1", "1e30"}};
}

Format hub_cache_format(const std::string&) {
    constexpr const char* tree =
        R"({"format_version": 1, "files": {"a/config.json": {"size": 12, "blob_id": "0123456789abcdef0123456789abcdef01234567"}}})";
    return {.file = "tree.json",
            .seeds = {tree},
            .read =
                [](const auto& folder, const auto& file) {
                    const std::string trees = folder + "/models--org--name/trees";
                    fs::create_directories(trees);
                    fs::copy_file(file, trees + "/" + std::string(40, 'a') + ".json",
                                  fs::copy_options::overwrite_existing);
                    HubSettings settings;
                    settings.cache = folder;
                    const HubCache cache(settings, {.repository = "org/name"});
                    const auto files = cache.read_tree(std::string(40, 'a'));
                    for (const HubFile& f : files.value_or(std::vector<HubFile>()))
                        require(is_inside(f.path) && is_hex(f.oid, 40), "a path leads out");
                },
            .structure = json_mutation()};
}

}  // namespace

std::vector<NamedFormat> run_formats() {
    const auto of_checkpoint = [](const std::string& file) {
        return [file](const std::string& scratch) { return checkpoint_format(scratch, file); };
    };
    return {
        {"yaml", yaml_format},
        {"store", store_format},
        {"hdf5", hdf5_format},
        {"manifest", of_checkpoint("manifest.json")},
        {"trainer_state", of_checkpoint("trainer_state.json")},
        {"state", of_checkpoint("state-00001-of-00001.h5"), 4},
        {"metrics", metrics_format},
        {"hub", hub_format},
        {"hub_cache", hub_cache_format},
    };
}

}  // namespace colonnade
