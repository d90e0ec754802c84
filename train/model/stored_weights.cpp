#include "train/model/stored_weights.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "engine/io/files.h"

namespace colonnade {
namespace {

bool has_safetensors(const std::string& folder) {
    return path_exists(folder + "/model.safetensors") || path_exists(folder + "/model.safetensors.index.json");
}

std::variant<SafetensorsWeights, GgufWeights> open_weights(const std::string& path) {
    if (is_gguf_file(path)) return GgufWeights(path);
    if (!is_file(path) && !has_safetensors(path))
        refuse_model_path(path, "neither model.safetensors nor model.safetensors.index.json in this folder");
    return SafetensorsWeights(path);
}

// Files that hold weights, or a part of a model, in a form that is not read. `end` is how a file name ends.
struct OtherFormat {
    const char *begin, *end, *advice;
};
constexpr OtherFormat other_formats[] = {
    {"", ".gguf", "give the path of the GGUF file itself"},
    {"pytorch_model", ".bin.index.json",
     "a PyTorch pickle, which can run code when it is read; transformers converts the folder: "
     "AutoModelForCausalLM.from_pretrained(FOLDER, dtype=\"auto\").save_pretrained(NEW_FOLDER)"},
    {"pytorch_model", ".bin",
     "a PyTorch pickle, which can run code when it is read; transformers converts the folder: "
     "AutoModelForCausalLM.from_pretrained(FOLDER, dtype=\"auto\").save_pretrained(NEW_FOLDER)"},
    {"consolidated", ".pth",
     "the original files of the model's maker; the Hugging Face version of the model has config.json and "
     "model.safetensors"},
    {"consolidated", ".safetensors",
     "the original files of the model's maker, under other names; the Hugging Face version of the model has "
     "config.json "
     "and model.safetensors"},
    {"adapter_", ".safetensors", "LoRA adapters, not a whole model: give the folder of their base"},
    {"adapter_", ".bin", "LoRA adapters as a PyTorch pickle: give the folder of their base"},
    {"tf_model", ".h5", "TensorFlow's format; transformers converts it: from_pretrained(FOLDER, from_tf=True)"},
    {"flax_model", ".msgpack", "Flax's format; transformers converts it: from_pretrained(FOLDER, from_flax=True)"},
};

// "FILE: advice" of the first such file in a folder, or nothing.
std::string found_instead(const std::string& folder) {
    const std::vector<std::string> names = names_in(folder);
    for (const OtherFormat& format : other_formats)
        for (const std::string& name : names)
            if (name.starts_with(format.begin) && name.ends_with(format.end))
                return fmt::format("found {}: {}", name, format.advice);
    return {};
}

}  // namespace

bool has_stored_weights(const std::string& path) {
    return is_gguf_file(path) || has_safetensors(path);
}

void refuse_model_path(const std::string& path, const std::string& missing) {
    if (path_exists(path)) {
        const std::string found = is_folder(path) ? found_instead(path) : "";
        fail(Exit::data, "{}: {}{}{}", path, missing, found.empty() ? "" : "; ", found);
    }
    // "meta-llama/Llama-3.2-1B" could be a relative path as well.
    const bool hub_name = std::ranges::count(path, '/') == 1 && path.front() != '/' && path.front() != '.';
    fail(Exit::data, "{}: no such folder or file{}", path,
         hub_name ? fmt::format("; a model of the Hugging Face hub is hf://{}", path) : "");
}

StoredWeights::StoredWeights(const std::string& path) : reader_(open_weights(path)) {}

const std::vector<TensorInfo>& StoredWeights::tensors() const {
    return std::visit([](const auto& r) -> const std::vector<TensorInfo>& { return r.tensors(); }, reader_);
}

const TensorInfo* StoredWeights::find(const std::string& name) const {
    return std::visit([&](const auto& r) { return r.find(name); }, reader_);
}

void StoredWeights::read(const TensorInfo& info, const Tensor& into) const {
    std::visit([&](const auto& r) { r.read(info, into); }, reader_);
}

bool StoredWeights::head_differs_from_embedding() const {
    const TensorInfo *head = find("lm_head.weight"), *embedding = find("model.embed_tokens.weight");
    if (!head || !embedding) return false;
    if (head->stored != embedding->stored || head->shape != embedding->shape) return true;
    const InputFile head_file(head->file), embedding_file(embedding->file);
    constexpr uint64_t piece = uint64_t{4} << 20;
    std::vector<char> a(piece), b(piece);
    for (uint64_t at = 0, bytes = head->end - head->begin; at < bytes; at += piece) {
        const auto count = static_cast<size_t>(std::min(piece, bytes - at));
        head_file.read_at(head->begin + at, a.data(), count);
        embedding_file.read_at(embedding->begin + at, b.data(), count);
        if (std::memcmp(a.data(), b.data(), count) != 0) return true;
    }
    return false;
}

DType StoredWeights::export_dtype() const {
    std::map<std::string, int64_t> elements;
    for (const TensorInfo& info : tensors()) elements[info.stored] += info.numel();
    const auto most = std::ranges::max_element(elements, {}, [](const auto& entry) { return entry.second; });
    if (most == elements.end() || most->first == "F32" || most->first == "F64") return DType::f32;
    return most->first == "F16" ? DType::f16 : DType::bf16;
}

}  // namespace colonnade
