#include "train/run/export_source.h"

#include <algorithm>

#include "data/text/choose_template.h"
#include "engine/io/files.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/exported_template.h"
#include "train/folders/initial_weights.h"
#include "train/folders/run_checkpoints.h"
#include "train/model/weight_folder.h"
#include "train/run/local_names.h"

namespace colonnade {
namespace {

const GgufType& type_named(DType dtype) {
    return *find_gguf_type(dtype == DType::f32 ? "F32" : dtype == DType::f16 ? "F16" : "BF16");
}

/// The type that the weights of a folder or file have.
const GgufType& type_of_source(const std::string& path) {
    return type_named(has_stored_weights(path) ? StoredWeights(path).export_dtype() : DType::f32);
}

/// Reads parameters from a flat f32 buffer in host memory, whose owner outlives the result.
auto from_flat(const ParameterList& list, const Tensor& flat) {
    return [&list, flat](const Parameter& p, const Tensor& into) {
        const float* from = slice_of(flat, *list.named(p.name)).as<float>();
        std::copy_n(from, p.size(), into.as<float>());
    };
}

/// Text as the exported folder of a model would have it.
GgufText gguf_text(const Encoder& encoder, const TextFolder& folder, const std::string& source,
                   const ModelConfig& model) {
    GgufText t{.source = source, .tokenizer = encoder.tokenizer(), .vocab_size = model.vocab_size};
    if (t.tokenizer) {
        t.chat = encoder.options().chat_template;
        if (const ChatTemplate* chosen = replacing_template(encoder))
            t.templates = {{.name = "default", .source = exported_source(*chosen, *t.tokenizer), .file = ""}};
        else
            t.templates = folder.templates;
        t.end_ids = encoder.stop_ids();
    }
    const auto token = [&](int64_t id) {
        const bool known = id >= 0 && id < model.vocab_size;
        return known ? std::optional(static_cast<int32_t>(id)) : std::nullopt;
    };
    for (const int64_t id : model.eos_token_ids)
        if (const auto end = token(id)) t.end_ids.push_back(*end);
    t.bos = token(model.bos_token_id);
    t.pad = token(model.pad_token_id);
    return t;
}

/// Whether text can be read from a path. A GGUF file may have no tokenizer.
bool has_text(const std::string& path) {
    if (!has_tokenizer(path)) return false;
    return !is_gguf_file(path) || GgufReader(path).metadata().text("tokenizer.ggml.model").value_or("none") != "none";
}

struct ModelText {
    TextFolder folder;
    std::unique_ptr<const Encoder> encoder;
    std::string source;
};

/// `paths`: the first with a tokenizer decides.
ModelText text_of_model(const std::vector<std::string>& paths, const ModelConfig& model) {
    ModelText text;
    const auto found = std::ranges::find_if(paths, has_text);
    EncodeOptions options{.vocab_size = model.vocab_size};
    if (found != paths.end()) {
        text.source = *found;
        text.folder = read_text_folder(text.source);
        options.chat_template = choose_template(text.folder, own_template, {});
        options.end_ids = text.folder.end_ids;
    }
    text.encoder = std::make_unique<const Encoder>(text.folder.tokenizer, std::move(options));
    return text;
}

std::string summary(const GgufOptions& o, int64_t parameters, const GgufType& type) {
    return fmt::format("{}{} parameters as {}", o.adapter ? "adapters, " : "", parameters, type.name);
}

GgufResult export_checkpoint(const GgufOptions& o) {
    CheckpointSource run(o.source, o.base, o.adapter);
    Learner& learner = *run.learner;
    const GgufType& type = o.adapter ? type_named(DType::f32)
                           : o.type  ? *o.type
                                     : type_of_source(run.config.model_name_or_path);
    GgufResult result{.notices = run.notices};
    GgufRequest request{.path = o.path, .config = learner.config(), .type = &type};
    if (o.adapter) {
        export_gguf_adapter(request, *run.lora, learner.parameters(), learner.weights());
        result.what = fmt::format("step {}, {}", run.step, summary(o, learner.parameters().count(), type));
        return result;
    }
    const ParameterList list = run.lora ? learner.base_parameters() : ParameterList(learner.config());
    std::optional<HostCopy> whole;
    if (run.freeze) whole = learner.whole_model(learner.weights());
    if (run.lora)
        merge_lora(*run.lora, learner.parameters(), learner.weights(), learner.base_parameters(), learner.base());
    request.read = from_flat(list, run.freeze ? whole->tensor() : run.lora ? learner.base() : learner.weights());
    request.text = gguf_text(*run.encoder, run.text.folder, run.config.tokenizer_name_or_path, learner.config());
    request.text.additions = token_additions(run.config);
    const std::vector<std::string> notices = export_gguf(request);
    result.notices.insert(result.notices.end(), notices.begin(), notices.end());
    result.what = fmt::format("step {}, {}", run.step, summary(o, list.count(), type));
    return result;
}

GgufResult export_adapters(const GgufOptions& o, LocalNames& names) {
    const AdapterConfig adapter = read_adapter_config(o.source);
    const std::string named = o.base.empty() ? adapter.base : o.base;
    if (named.empty()) fail(Exit::config, "{}: adapter_config.json names no base model; give --base", o.source);
    const std::string base = names.model(named);
    if (!path_exists(base))
        fail(Exit::config, "{}: the base model '{}' is not on this machine; give --base", o.source, base);
    const ModelConfig model = read_model_config(base);
    if (adapter.score_head) fail(Exit::data, "{}: adapters of a reward model, which llama.cpp cannot use", o.source);
    const ParameterList list = lora_parameters(model, adapter.lora);
    GgufRequest request{.path = o.path, .config = model};
    GgufResult result;
    if (o.adapter) {
        const HostCopy flat = HostCopy::blank(DType::f32, list.size());
        load_adapter(o.source, list, flat.tensor());
        export_gguf_adapter(request, adapter.lora, list, flat.tensor());
        result.what = summary(o, list.count(), type_named(DType::f32));
        return result;
    }
    const GgufType& type = o.type ? *o.type : type_of_source(base);
    Learner learner(model, {.training = false, .lora = adapter.lora});
    load_base(base, learner);
    learner.fill_weights([&](const Tensor& flat) { load_adapter(o.source, list, flat); });
    merge_lora(adapter.lora, list, learner.weights(), learner.base_parameters(), learner.base());
    const ModelText text = text_of_model({o.source, base}, model);
    request.type = &type;
    request.read = from_flat(learner.base_parameters(), learner.base());
    request.text = gguf_text(*text.encoder, text.folder, text.source, model);
    result.notices = model.notices;
    for (std::string& notice : export_gguf(request)) result.notices.push_back(std::move(notice));
    result.what = summary(o, learner.base_parameters().count(), type);
    return result;
}

GgufResult export_stored(const GgufOptions& o) {
    if (o.adapter) fail(Exit::config, "{}: --adapter is for adapters; this is a whole model", o.source);
    if (!o.base.empty()) fail(Exit::config, "{}: --base is for adapters; this is a whole model", o.source);
    const ModelConfig model = read_model_config(o.source);
    const ParameterList list(model);
    const GgufType& type = o.type ? *o.type : type_of_source(o.source);
    const WeightFolder stored(list, model, o.source);
    const ModelText text = text_of_model({o.source}, model);
    GgufResult result{.notices = model.notices};
    const std::vector<std::string> notices =
        export_gguf({.path = o.path,
                     .config = model,
                     .text = gguf_text(*text.encoder, text.folder, text.source, model),
                     .type = &type,
                     .read = [&](const Parameter& p, const Tensor& into) { stored.read(p, into); }});
    result.notices.insert(result.notices.end(), notices.begin(), notices.end());
    result.what = summary(o, list.count(), type);
    return result;
}

}  // namespace

CheckpointSource::CheckpointSource(std::string checkpoint, const std::string& base, bool adapter) {
    if (const std::string newest = checkpoint_for_model(checkpoint); !newest.empty()) checkpoint = newest;
    folder = std::move(checkpoint);
    const WholeCheckpoint whole = check_checkpoint(folder);
    const ModelConfig model = checkpoint_model(whole);
    const std::string config_path = folder + "/config.yaml";
    config = parse_config(read_file(config_path), config_path).config;
    lora = lora_settings(config);
    freeze = freeze_settings(config);
    if (!lora && (adapter || (!base.empty() && !freeze)))
        fail(Exit::config, "{}: {} is for runs with finetuning_type lora; this run has finetuning_type {}", folder,
             adapter ? "--adapter" : "--base", freeze ? "freeze" : "full");
    if (!base.empty()) {
        if (config.tokenizer_name_or_path == config.model_name_or_path) config.tokenizer_name_or_path = base;
        config.model_name_or_path = base;
    }
    LocalNames names;
    const bool same = config.tokenizer_name_or_path == config.model_name_or_path;
    config.model_name_or_path = names.model(config.model_name_or_path);
    config.tokenizer_name_or_path =
        same ? config.model_name_or_path : names.model(config.tokenizer_name_or_path, ModelFiles::tokenizer);
    config.hub_names = names.names();
    notices = names.notices();
    learner = std::make_unique<Learner>(model, LearnerOptions{.training = false, .lora = lora, .freeze = freeze});
    if (learner->has_base()) load_base(config.model_name_or_path, *learner);
    step = load_checkpoint(whole, *learner).step;
    text = load_text(config);
    encoder = make_encoder(config, text, model.vocab_size);
}

GgufResult export_to_gguf(const GgufOptions& options) {
    GgufOptions o = options;
    LocalNames names;
    o.source = names.model(o.source);
    const bool checkpoint = path_exists(o.source + "/trainer_state.json") || !checkpoint_for_model(o.source).empty();
    GgufResult result = checkpoint                    ? export_checkpoint(o)
                        : is_adapter_folder(o.source) ? export_adapters(o, names)
                                                      : export_stored(o);
    result.notices.insert(result.notices.begin(), names.notices().begin(), names.notices().end());
    return result;
}

}  // namespace colonnade
