// Weights and shapes of models: safetensors, GGUF, config.json, adapters.

#include <filesystem>

#include "data/text/text_folder.h"
#include "engine/io/gguf.h"
#include "engine/io/safetensors.h"
#include "tests/fuzz/formats.h"
#include "tests/support/file_test.h"
#include "tests/support/gguf_file.h"
#include "tests/support/paths.h"
#include "train/folders/adapter_folder.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr int64_t most_elements = 1 << 20;

template <typename Reader>
void read_tensors(const Reader& reader) {
    for (const TensorInfo& info : reader.tensors()) {
        const int64_t elements = info.numel();
        if (!info.readable || elements > most_elements) continue;
        std::vector<float> values(static_cast<size_t>(elements));
        reader.read(info, Tensor(values.data(), DType::f32, {elements}));
    }
}

/// The shape of a model, and its weights if they are small.
void read_model(const std::string& path) {
    const ModelConfig config = read_model_config(path);
    const ParameterList list(config);
    const WeightFolder weights(list, config, path);
    std::vector<float> values;
    for (const Parameter& p : list.all()) {
        if (p.size() > most_elements || !weights.has(p)) continue;
        values.resize(static_cast<size_t>(p.size()));
        weights.read(p, Tensor(values.data(), DType::f32, {p.size()}));
    }
}

struct SmallTensors {
    std::vector<float> a = {1, 2, 3, 4, 5, 6}, b = {7, 8};
    std::vector<NamedTensor> named() {
        return {{"a", Tensor(a.data(), DType::f32, {6}), {2, 3}}, {"b.weight", Tensor(b.data(), DType::f32, {2}), {2}}};
    }
};

std::string small_safetensors(const std::string& scratch, DType stored) {
    SmallTensors tensors;
    const std::string path = fmt::format("{}/{}.safetensors", scratch, stored);
    write_safetensors_file(path, tensors.named(), stored);
    return slurp(path);
}

Format safetensors_format(const std::string& scratch) {
    Format format{.file = "model.safetensors",
                  .seeds = golden_contents("reward", "llama/model.safetensors"),
                  .read = [](const auto& folder, const auto&) { read_tensors(SafetensorsReader(folder)); },
                  .structure = mutation_within(safetensors_header(), json_mutation())};
    for (const DType stored : {DType::f32, DType::bf16, DType::f16})
        format.seeds.push_back(small_safetensors(scratch, stored));
    return format;
}

Format safetensors_index_format(const std::string& scratch) {
    SmallTensors tensors;
    write_safetensors(scratch, tensors.named(), DType::f32, 24);
    const std::string index = scratch + "/model.safetensors.index.json", content = slurp(index);
    fs::remove(index);
    return {.file = "model.safetensors.index.json",
            .seeds = {content},
            .read = [](const auto& folder, const auto&) { read_tensors(SafetensorsReader(folder)); },
            .structure = json_mutation(),
            .beside = scratch};
}

/// config.json beside the weights of a small model.
Format config_format(const std::string& scratch) {
    fs::copy_file(golden_file("reward/llama/model.safetensors"), scratch + "/model.safetensors");
    Format format{.file = "config.json",
                  .seeds = golden_contents("models", "config.json"),
                  .read = [](const auto& folder, const auto&) { read_model(folder); },
                  .structure = json_mutation(),
                  .beside = scratch};
    for (const std::string& config : golden_contents("reward", "config.json")) format.seeds.push_back(config);
    return format;
}

// The keys of a scaling that export writes beside those of the golden files.
std::string gguf_with_yarn() {
    const auto integer = [](const char* key, uint32_t value) { return gguf_pair(key, GgufKind::u32, value); };
    const auto number = [](const char* key, float value) { return gguf_pair(key, GgufKind::f32, value); };
    return gguf_file({gguf_pair("general.architecture", "llama"), gguf_pair("general.type", "model"),
                      integer("llama.block_count", 1), integer("llama.context_length", 64),
                      integer("llama.embedding_length", 32), integer("llama.feed_forward_length", 8),
                      integer("llama.attention.head_count", 4), number("llama.attention.layer_norm_rms_epsilon", 1e-6f),
                      gguf_pair("llama.rope.scaling.type", "yarn"), number("llama.rope.scaling.factor", 4),
                      integer("llama.rope.scaling.original_context_length", 16),
                      number("llama.rope.scaling.yarn_beta_fast", 32), number("llama.rope.scaling.yarn_beta_slow", 1),
                      number("llama.rope.scaling.attn_factor", 1.25f), integer("tokenizer.ggml.eom_token_id", 0),
                      number("colonnade.rope_scaling.factor", 8)});
}

std::vector<std::string> gguf_tokenizers() {
    const std::vector<std::string> pieces = {"<unk>", "<s>", "\u2581", "a", "b", "ab", "\u2581a", "<tool>"};
    return {
        gguf_file({gguf_pair("tokenizer.ggml.model", "llama"),
                   gguf_pair("tokenizer.ggml.tokens", GgufKind::string, pieces),
                   gguf_pair("tokenizer.ggml.scores", GgufKind::f32, std::vector<float>{0, 0, -9, -8, -7, -1, -2, 0}),
                   gguf_pair("tokenizer.ggml.token_type", GgufKind::i32, std::vector<int32_t>{2, 3, 1, 1, 1, 1, 1, 4}),
                   gguf_pair("tokenizer.ggml.bos_token_id", GgufKind::u32, uint32_t{1}),
                   gguf_pair("tokenizer.chat_template", "{{ messages[0].content }}")}),
        gguf_file({gguf_pair("tokenizer.ggml.model", "gpt2"), gguf_pair("tokenizer.ggml.pre", "qwen2"),
                   gguf_pair("tokenizer.ggml.tokens", GgufKind::string,
                             std::vector<std::string>{"<s>", "a", "b", "ab", "</s>"}),
                   gguf_pair("tokenizer.ggml.token_type", GgufKind::i32, std::vector<int32_t>{3, 1, 1, 1, 3}),
                   gguf_pair("tokenizer.ggml.merges", GgufKind::string, std::vector<std::string>{"a b"}),
                   gguf_pair("tokenizer.ggml.add_bos_token", GgufKind::boolean, uint8_t{1})})};
}

void read_gguf(const std::string& file) {
    read_tensors(GgufReader(file));
    try {
        const TextFolder text = read_text_folder(file);
        (void)text.tokenizer->decode(text.tokenizer->encode("ab Hello \xF0\x9F\x98\x80"), SpecialTokens::keep);
    } catch (const Error& e) {  // a file may hold weights alone
        if (e.exit() == Exit::internal) throw;
    }
    read_model(file);
}

Format gguf_format(const std::string&) {
    Format format{.file = "model.gguf",
                  .seeds = golden_contents("gguf", ".gguf"),
                  .read = [](const auto&, const auto& file) { read_gguf(file); }};
    for (const std::string& tokenizer : gguf_tokenizers()) format.seeds.push_back(tokenizer);
    format.seeds.push_back(gguf_with_yarn());
    return format;
}

/// The model that the golden adapters of Llama belong to.
ModelConfig base_of_adapters() {
    return read_model_config(project_file(read_adapter_config(golden_file("lora/llama_all")).base));
}

void read_adapter(const std::string& folder) {
    static const ModelConfig model = base_of_adapters();
    const AdapterConfig config = read_adapter_config(folder);
    const ParameterList list = lora_parameters(model, config.lora);
    if (list.size() > most_elements) return;
    std::vector<float> values(static_cast<size_t>(list.size()));
    load_adapter(folder, list, Tensor(values.data(), DType::f32, {list.size()}));
}

Format adapter_format(const std::string& scratch, const std::string& mutated, const std::string& other) {
    fs::copy_file(golden_file("lora/llama_all/" + other), scratch + "/" + other);
    return {.file = mutated,
            .seeds = {slurp(golden_file("lora/llama_all/" + mutated))},
            .read = [](const auto& folder, const auto&) { read_adapter(folder); },
            .structure =
                mutated.ends_with(".json") ? json_mutation() : mutation_within(safetensors_header(), json_mutation()),
            .beside = scratch};
}

}  // namespace

std::vector<NamedFormat> model_formats() {
    constexpr const char *adapter_config = "adapter_config.json", *adapter_weights = "adapter_model.safetensors";
    return {
        {"safetensors", safetensors_format},
        {"safetensors_index", safetensors_index_format},
        {"config", config_format},
        {"gguf", gguf_format},
        {"adapter_config",
         [=](const auto& scratch) { return adapter_format(scratch, adapter_config, adapter_weights); }},
        {"adapter_weights",
         [=](const auto& scratch) { return adapter_format(scratch, adapter_weights, adapter_config); }},
    };
}

}  // namespace colonnade
