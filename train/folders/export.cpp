#include "train/folders/export.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "data/text/text_folder.h"
#include "engine/io/files.h"
#include "engine/io/folder_lock.h"
#include "engine/io/json_keys.h"
#include "engine/io/own_file.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/exported_template.h"
#include "train/folders/initial_weights.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

// transformers v5 calls the key "dtype", v4 "torch_dtype".
void set_dtype(Json& config, DType stored) {
    const char* name = stored == DType::bf16 ? "bfloat16" : stored == DType::f16 ? "float16" : "float32";
    config[config.contains("dtype") ? "dtype" : "torch_dtype"] = name;
}

// A GGUF file has no config.json: then the model's own shape writes it.
Json config_json(const ExportRequest& r, DType stored) {
    const bool folder = is_folder(r.source_folder);
    Json config = folder ? read_json_file(r.source_folder + "/config.json") : to_json(r.config);
    set_dtype(config, stored);
    config.erase("quantization_config");  // the weights are stored in whole
    const bool tied_if_absent = family_of(r.config.architecture).tied;
    if (JsonKeys(config, r.source_folder).boolean("tie_word_embeddings", tied_if_absent) !=
        r.config.tie_word_embeddings)
        config["tie_word_embeddings"] = r.config.tie_word_embeddings;
    if (r.config.score_head) set_score_head(config, r.config);
    config["vocab_size"] = r.config.vocab_size;
    for (const auto& [role, token] : r.additions.roles)
        if (role != "unk_token") config[role + "_id"] = r.encoder->tokenizer()->piece_id(token).value_or(-1);
    return config;
}

std::vector<int64_t> token_ids(const Json& json, const std::string& where) {
    std::vector<int64_t> ids;
    for (const Json& id : json.is_array() ? json : Json::array({json})) {
        if (!id.is_number_unsigned() && !id.is_null())
            fail(Exit::data, "{}: eos_token_id: expected a token id, found {:.40}", where, id.dump());
        if (!id.is_null()) ids.push_back(id);
    }
    return ids;
}

Json generation_config_json(const ExportRequest& r) {
    const std::string source = r.source_folder + "/generation_config.json";
    Json j = Json::object();
    if (!r.source_folder.empty() && path_exists(source)) j = read_json_file(own_file(r.source_folder, source));
    if (r.config.bos_token_id >= 0) j["bos_token_id"] = r.config.bos_token_id;
    if (r.config.pad_token_id >= 0) j["pad_token_id"] = r.config.pad_token_id;
    // The stop ids of the training template: without them generation never ends. Those of the model stay.
    std::vector<int64_t> ends = r.config.eos_token_ids;
    if (j.contains("eos_token_id")) ends = token_ids(j["eos_token_id"], source);
    for (const int64_t id : r.encoder->stop_ids())
        if (std::ranges::find(ends, id) == ends.end()) ends.push_back(id);
    if (!ends.empty()) j["eos_token_id"] = ends;
    return j;
}

void write_tokenizer(const ExportRequest& r) {
    for (const std::string& notice : export_text({.source = r.tokenizer_source,
                                     .folder = r.folder,
                                     .tokenizer = r.encoder->tokenizer().get(),
                                     .chat_template = replacing_template(*r.encoder),
                                     .additions = r.additions}))
        if (r.prints) fmt::print("note: {}\n", notice);
    remove_file(r.folder + "/colonnade.json");  // of an older export, which named the template there
}

// The weights that are finite, but become infinite as f16 (above 65504).
struct Overflow {
    int64_t count = 0;
    float largest = 0;
    std::string tensor;  // that has the largest
};
Overflow overflow_of_f16(const std::vector<NamedTensor>& tensors) {
    constexpr float rounds_to_infinity = 65520;
    Overflow found;
    for (const NamedTensor& t : tensors) {
        const HostCopy loaded = t.load();
        for (const float value : std::span(loaded.tensor().as<float>(), static_cast<size_t>(loaded.tensor().numel()))) {
            if (!(std::abs(value) >= rounds_to_infinity) || std::isinf(value)) continue;
            ++found.count;
            if (std::abs(value) > found.largest) found.largest = std::abs(value), found.tensor = t.name;
        }
    }
    return found;
}

DType settle_dtype(const ExportRequest& r, const std::vector<NamedTensor>& tensors) {
    const bool has_source = has_stored_weights(r.source_folder);
    const DType stored = r.stored ? *r.stored : has_source ? StoredWeights(r.source_folder).export_dtype() : DType::f32;
    if (stored != DType::f16) return stored;
    const Overflow overflow = overflow_of_f16(tensors);
    if (overflow.count == 0) return stored;
    const std::string what =
        fmt::format("{}: {} weights are beyond float16, which ends at 65504; the largest is {} in '{}'", r.folder,
                    overflow.count, overflow.largest, overflow.tensor);
    if (r.stored) fail(Exit::numerics, "{}; give bfloat16 or float32", what);
    if (r.prints) fmt::print("note: {}; the export is float32\n", what);
    return DType::f32;
}

std::vector<NamedTensor> tensors_of(const ExportRequest& r) {
    if (!r.read) return named_tensors(r.parameters, r.weights);
    std::vector<NamedTensor> tensors = named_tensors(r.parameters, Tensor(nullptr, DType::f32, {r.parameters.size()}));
    for (NamedTensor& t : tensors) t.read = [&r, p = r.parameters.named(t.name)] { return r.read(*p); };
    return tensors;
}

// Writes the shards to a folder of their own first, so that an older export stays complete if the disk fails.
DType stage_weights(const ExportRequest& r, const std::string& staging) {
    const std::vector<NamedTensor> tensors = tensors_of(r);
    const DType stored = settle_dtype(r, tensors);
    write_safetensors(staging, tensors, stored);
    return stored;
}

/// It is gone from the disk before the weights are touched.
void remove_config(const std::string& folder) {
    if (remove_file(folder + "/config.json")) sync_path(folder);
}

void remove_weights(const std::string& folder) {
    for (const std::string& name : names_in(folder))
        if (name.starts_with("model") && name.find(".safetensors") != std::string::npos)
            remove_file(folder + "/" + name);
}

void replace_weights(const std::string& folder, const std::string& staging) {
    remove_weights(folder);
    for (const std::string& name : names_in(staging)) rename_path(staging + "/" + name, folder + "/" + name);
    sync_path(folder);
}

}  // namespace

DType export_model(const ExportRequest& r) {
    make_folders(r.folder);
    const SharedFolder share(r.folder, export_stems);
    // Read everything before removing anything: the source may be this very folder.
    const Json generation_config = generation_config_json(r);
    remove_tree(r.folder + "/.weights");                 // of a killed export of an older version
    const FolderCommit staging(r.folder + "/.weights");  // not committed: its files are moved
    const DType stored = stage_weights(r, staging.folder());
    const Json config = config_json(r, stored);
    remove_config(r.folder);
    remove_adapter(r.folder);
    replace_weights(r.folder, staging.folder());
    write_tokenizer(r);
    write_file_atomically(r.folder + "/generation_config.json", generation_config.dump(2) + "\n");
    write_file_atomically(r.folder + "/config.json", config.dump(2) + "\n");
    return stored;
}

void export_adapter(const ExportRequest& r, const LoraSettings& lora) {
    make_folders(r.folder);
    const SharedFolder share(r.folder, export_stems);
    remove_config(r.folder);
    remove_weights(r.folder);
    remove_adapter(r.folder);
    write_tokenizer(r);
    write_adapter(r.folder, {lora, r.base.empty() ? r.source_folder : r.base}, r.parameters, r.weights);
}

DType export_merged(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                    const std::string& folder, std::optional<DType> stored) {
    merge_lora(*learner.options().lora, learner.parameters(), learner.weights(), learner.base_parameters(),
               learner.base());
    return export_model({.folder = folder,
                         .config = learner.config(),
                         .parameters = learner.base_parameters(),
                         .weights = learner.base(),
                         .stored = stored,
                         .source_folder = config.model_name_or_path,
                         .encoder = std::move(encoder),
                         .tokenizer_source = config.tokenizer_name_or_path,
                         .additions = token_additions(config)});
}

void export_merged_copy(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                        const Tensor& adapters, const std::string& folder) {
    Learner copy(learner.config(), {.training = false, .lora = learner.options().lora});
    load_base(config.model_name_or_path, copy);
    if (copy.base_hash() != learner.base_hash())
        fail(Exit::data, "{}: the model has changed since training began; nothing is merged",
             config.model_name_or_path);
    copy.fill_weights(
        [&](const Tensor& weights) { std::copy_n(adapters.as<float>(), weights.numel(), weights.as<float>()); });
    export_merged(config, std::move(encoder), copy, folder);
}

FurtherFiles hugging_face_files(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner) {
    return [&config, &learner, encoder = std::move(encoder)](const std::string& folder, const Tensor& weights) {
        ExportRequest request = export_request(config, encoder, learner, folder);
        request.prints = false;
        if (learner.options().lora) return write_tokenizer(request);
        request.weights = weights;
        export_model(request);
    };
}

DType export_with_frozen(ExportRequest request, const Learner& learner) {
    const HostCopy model = learner.whole_model(request.weights);
    request.parameters = ParameterList(learner.config());
    request.weights = model.tensor();
    return export_model(request);
}

ExportRequest export_request(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                             const std::string& folder, std::optional<DType> stored) {
    return {.folder = folder,
            .config = learner.config(),
            .parameters = learner.parameters(),
            .weights = learner.options().gpu ? Tensor() : learner.weights(),
            .stored = stored,
            .source_folder = config.model_name_or_path,
            .base = config.name_of(config.model_name_or_path),
            .encoder = std::move(encoder),
            .tokenizer_source = config.tokenizer_name_or_path,
            .additions = token_additions(config)};
}

}  // namespace colonnade
