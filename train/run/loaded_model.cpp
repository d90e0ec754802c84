#include "train/run/loaded_model.h"

#include <algorithm>

#include "attention/flashmask.h"
#include "data/text/choose_template.h"
#include "engine/device/host_copy.h"
#include "engine/io/files.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/initial_weights.h"
#include "train/folders/run_checkpoints.h"
#include "train/model/weight_folder.h"
#include "train/run/local_names.h"
#include "train/run/run_model.h"
#include "train/run/run_record.h"

namespace colonnade {
namespace {

bool is_checkpoint(const std::string& path) {
    return path_exists(path + "/trainer_state.json") && path_exists(path + "/config.yaml");
}

/// The base of a PEFT folder or of a checkpoint of adapters.
std::string base_of(const LoadRequest& request, const AdapterConfig& adapter, LocalNames& names) {
    if (!request.base.empty()) return names.model(request.base);
    if (adapter.base.empty())
        fail(Exit::config, "{}: adapter_config.json names no base model; pass --base", request.model);
    const std::string base = names.model(adapter.base);
    if (!path_exists(base))
        fail(Exit::config, "{}: the base model '{}' is not on this machine; pass --base", request.model, base);
    return base;
}

/// The model of which a checkpoint has only the trained layers; empty if it has all layers.
std::string base_of_frozen(const LoadRequest& request, LocalNames& names) {
    const std::string path = request.model + "/config.yaml";
    const Config config = parse_config(read_file(path), path).config;
    if (config.finetuning_type != Finetuning::freeze) return "";
    return names.model(request.base.empty() ? config.model_name_or_path : request.base);
}

/// Whether bf16 holds all matrices of the file without loss.
bool stores_bf16(const std::string& path) {
    const StoredWeights stored(path);
    return std::ranges::all_of(stored.tensors(),
                               [](const TensorInfo& t) { return t.shape.size() < 2 || t.stored == "BF16"; });
}

/// Norms and biases, in their order, for a buffer of their own.
ParameterList vectors_of(const ParameterList& list) {
    ParameterList vectors;
    const ParameterEntry::View* before = nullptr;
    for (const Parameter& p : list.all()) {
        if (p.shape.size() != 1) continue;
        const ParameterEntry::View& view = entry_of(p.role).view;
        if (!before || !(*before == view)) vectors.align();
        before = &view;
        vectors.add(p);
    }
    vectors.align();
    return vectors;
}

/// Replaces the views of norms and biases.
void take_vectors(ModelParameters& model, const ModelParameters& vectors) {
    model.final_norm = vectors.final_norm;
    for (size_t l = 0; l < model.blocks.size(); ++l) {
        BlockParameters& to = model.blocks[l];
        const BlockParameters& from = vectors.blocks[l];
        to.input_norm = from.input_norm, to.post_attention_norm = from.post_attention_norm;
        to.q_norm = from.q_norm, to.k_norm = from.k_norm;
        for (const Projection p : all_projections) to.linear[p].bias = from.linear[p].bias;
    }
}

void narrow(const Tensor& to, const Tensor& from) {
    const float* const in = from.as<float>();
    bf16* const out = to.as<bf16>();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < from.numel(); ++i) out[i].bits = bf16_from_float(in[i]);
}

}  // namespace

LoadedModel::LoadedModel(LoadRequest request) : gpu_(request.gpu) {
    LocalNames names;
    request.model = names.model(request.model);
    request.tokenizer = names.model(request.tokenizer, ModelFiles::tokenizer);
    notices_ = names.notices();
    if (const std::string newest = checkpoint_for_model(request.model); !newest.empty()) {
        const std::string state = state_of_run(request.model);
        notices_.push_back(fmt::format("{} has no model yet{}: the model is that of {}", request.model,
                                       state.empty() ? "" : fmt::format(" (its run: {})", state), newest));
        request.model = newest;
    }
    std::string path = request.model;
    std::optional<WholeCheckpoint> checkpoint;
    if (is_checkpoint(path)) {
        checkpoint = check_checkpoint(path);
        config_ = checkpoint_model(*checkpoint);
    }
    std::optional<AdapterConfig> adapter;
    if (is_adapter_folder(path)) adapter = read_adapter_config(path);
    const std::string frozen = checkpoint && !adapter ? base_of_frozen(request, names) : "";
    if (!adapter && frozen.empty() && !request.base.empty())
        fail(Exit::config, "{}: --base is for a folder of adapters, or a checkpoint with frozen layers", request.model);
    if (adapter) path = base_of(request, *adapter, names);
    if (adapter || !checkpoint) config_ = read_model_config(path);
    notices_.insert(notices_.end(), config_.notices.begin(), config_.notices.end());
    if (gpu_ && !flashmask_runs(Device::cuda, config_.head_dim)) {
        gpu_ = nullptr;
        notices_.push_back(fmt::format(
            "device: cpu, because attention has no GPU kernel for head_dim {} (64, 96, 128, 256)", config_.head_dim));
    }
    if (config_.score_head || (adapter && adapter->score_head))
        fail(Exit::data, "{}: a reward model scores answers and has no head that could generate text", request.model);
    if (request.text) load_text(request, checkpoint ? request.model : "", path);
    if (checkpoint && !adapter)
        load_checkpoint_weights(*checkpoint, frozen);
    else
        load_stored(path);
    if (!adapter) return;
    lora_ = adapter->lora;
    load_adapters(request.model);
}

Tensor LoadedModel::allocate(DType dtype, int64_t elements) {
    const Device device = gpu_ ? Device::cuda : Device::cpu;
    const size_t bytes = static_cast<size_t>(elements) * bytes_of(dtype);
    const auto arena = std::make_shared<Arena>(device, bytes + Arena::alignment);
    memory_.push_back(arena);
    bytes_ += bytes;
    return arena->tensor("weights", dtype, {elements});
}

void LoadedModel::load_stored(const std::string& path) {
    const ParameterList list(config_);
    const WeightFolder stored(list, config_, path);
    const bool half = gpu_ || stores_bf16(path);
    const Tensor flat = allocate(half ? DType::bf16 : DType::f32, list.size());
    views_ = view_parameters(list, flat);
    if (!half) {
        for (const Parameter& p : list.all()) stored.read(p, slice_of(flat, p));
        return;
    }
    const ParameterList vectors = gpu_ ? ParameterList() : vectors_of(list);
    const Tensor single = gpu_ ? Tensor() : allocate(DType::f32, vectors.size());
    for (const Parameter& p : list.all()) {
        if (!gpu_ && p.shape.size() == 1) {
            stored.read(p, slice_of(single, *vectors.named(p.name)));
            continue;
        }
        const HostCopy host = HostCopy::blank(DType::f32, p.size());
        stored.read(p, host.tensor());
        if (gpu_)
            upload_as_bf16(*gpu_, slice_of(flat, p), host.tensor().as<float>());
        else
            narrow(slice_of(flat, p), host.tensor());
    }
    if (!gpu_) take_vectors(views_, view_parameters(vectors, single));
}

void LoadedModel::load_checkpoint_weights(const WholeCheckpoint& checkpoint, const std::string& base) {
    const std::string path = checkpoint.folder + "/config.yaml";
    const auto freeze = freeze_settings(parse_config(read_file(path), path).config);
    const auto learner = std::make_shared<Learner>(config_, LearnerOptions{.training = false, .freeze = freeze});
    if (freeze) load_base(base, *learner);
    load_checkpoint(checkpoint, *learner);
    if (!gpu_) {
        memory_.push_back(learner);
        bytes_ += learner->weights().bytes() + learner->base().bytes();
        views_ = learner->model().weights();
        return;
    }
    const HostCopy whole =
        freeze ? learner->whole_model(learner->weights()) : HostCopy::of(nullptr, learner->weights());
    const Tensor flat = allocate(DType::bf16, whole.tensor().numel());
    upload_as_bf16(*gpu_, flat, whole.tensor().as<float>());
    views_ = view_parameters(ParameterList(config_), flat);
}

void LoadedModel::load_adapters(const std::string& folder) {
    const ParameterList list = lora_parameters(config_, *lora_);
    const HostCopy host = HostCopy::blank(DType::f32, list.size());
    load_adapter(folder, list, host.tensor());
    const Tensor flat = allocate(gpu_ ? DType::bf16 : DType::f32, list.size());
    if (gpu_)
        upload_as_bf16(*gpu_, flat, host.tensor().as<float>());
    else
        std::copy_n(host.tensor().as<float>(), list.size(), flat.as<float>());
    view_lora(config_, *lora_, list, flat, views_);
}

void LoadedModel::load_text(const LoadRequest& request, const std::string& checkpoint, const std::string& base) {
    RunText text;
    if (!checkpoint.empty()) {
        const std::string path = checkpoint + "/config.yaml";
        Config config = parse_config(read_file(path), path).config;
        if (!request.base.empty() && config.tokenizer_name_or_path == config.model_name_or_path)
            config.tokenizer_name_or_path = request.base;
        if (!request.tokenizer.empty()) config.tokenizer_name_or_path = request.tokenizer;
        text = colonnade::load_text(config);
        if (!text.folder.tokenizer) fail(Exit::config, "{}: the run had no tokenizer; pass --tokenizer", request.model);
    } else {
        const std::string own = has_tokenizer(request.model) ? request.model : base;
        text.folder = read_text_folder(request.tokenizer.empty() ? own : request.tokenizer);
    }
    EncodeOptions options;
    const bool chosen = !request.chat_template.empty() || !request.template_variables.empty();
    options.chat_template =
        text.chat_template && !chosen
            ? text.chat_template
            : choose_template(text.folder, request.chat_template.empty() ? own_template : request.chat_template,
                              {.variables = request.template_variables});
    options.end_ids = text.folder.end_ids;
    options.allow_spelled_out_markers = request.allow_spelled_out_markers;
    options.max_length = config_.max_position_embeddings;
    options.vocab_size = config_.vocab_size;
    encoder_ = std::make_unique<Encoder>(text.folder.tokenizer, std::move(options));
}

}  // namespace colonnade
