#include "train/folders/export_gguf.h"

#include <cmath>
#include <cstring>
#include <filesystem>

#include "engine/io/folder_lock.h"
#include "engine/io/progress.h"
#include "train/model/gguf_names.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// general.file_type.
int64_t file_type(const GgufType& type) {
    const std::string_view name = type.name;
    return name == "F32" ? 0 : name == "F16" ? 1 : name == "Q8_0" ? 7 : 32;
}

std::string name_in_file(const std::string& name) {
    const auto found = translated_name(name, TensorNames::hugging_face);
    require(found.has_value(), "parameter '{}' has no name in GGUF files", name);
    return *found;
}

/// Writes a file whose tensors follow each other as planned.
class OneFile {
  public:
    OneFile(const std::string& path, const GgufPairs& pairs, const std::vector<GgufTensor>& tensors)
        : leftovers_{fs::path(path).filename().string()},
          folder_(open(path), stems_),
          writer_(path, pairs, tensors),
          progress_({.label = "export", .total = bytes_of(tensors), .unit = "B", .passing = true}) {}

    /// `elements`: f32.
    void write(const Tensor& elements) {
        writer_.write(elements);
        progress_.update(done_ += static_cast<double>(elements.bytes()));
    }
    void commit() {
        writer_.commit();
        progress_.finish();
    }

  private:
    static std::string open(const std::string& path) {
        const std::string folder = parent_of(path);
        make_folders(folder);
        return folder;
    }
    static double bytes_of(const std::vector<GgufTensor>& tensors) {
        double elements = 0;
        for (const GgufTensor& t : tensors) {
            double size = 1;
            for (const int64_t n : t.shape) size *= static_cast<double>(n);
            elements += size;
        }
        return elements * sizeof(float);
    }

    std::string leftovers_;
    std::string_view stems_[1] = {leftovers_};
    SharedFolder folder_;
    GgufWriter writer_;
    Progress progress_;
    double done_ = 0;
};

}  // namespace

std::vector<std::string> export_gguf(const GgufRequest& r) {
    GgufPairs pairs;
    std::vector<std::string> notices = add_model_pairs(r.config, r.path, pairs);
    pairs.text("general.type", "model");
    pairs.text("general.name", fs::path(r.path).stem().string());
    pairs.integer("general.file_type", file_type(*r.type));
    pairs.integer("general.quantization_version", 2);
    for (std::string& notice : add_text_pairs(r.text, pairs)) notices.push_back(std::move(notice));

    const ParameterList list(r.config);
    std::vector<float> divisors = rope_divisors(r.config);
    std::vector<GgufTensor> tensors;
    if (!divisors.empty()) tensors.push_back({gguf_rope_tensor, {std::ssize(divisors)}, find_gguf_type("F32")});
    for (auto p = list.all().rbegin(); p != list.all().rend(); ++p)
        tensors.push_back({name_in_file(p->name), p->shape, &gguf_type_of(p->shape, *r.type)});

    OneFile file(r.path, pairs, tensors);
    if (!divisors.empty()) file.write(view_of(divisors));
    std::vector<float> elements;
    for (auto p = list.all().rbegin(); p != list.all().rend(); ++p) {
        elements.resize(static_cast<size_t>(p->size()));
        r.read(*p, view_of(elements));
        if (const int64_t heads = interleaved_heads(r.config, p->role))
            interleave_heads(view_of(elements), heads, r.config.head_dim);
        file.write(view_of(elements));
    }
    file.commit();
    return notices;
}

void export_gguf_adapter(const GgufRequest& r, const LoraSettings& lora, const ParameterList& list,
                         const Tensor& flat) {
    if (list.head())
        fail(Exit::data,
             "{}: the head was trained whole beside the adapters, which an adapter of llama.cpp cannot say; "
             "export the merged model: without --adapter",
             r.path);
    if (lora.alpha == 0)
        fail(Exit::data, "{}: lora_alpha is 0, which llama.cpp takes for a scale of 1; these adapters change nothing",
             r.path);
    GgufPairs pairs;
    pairs.text("general.architecture", gguf_architecture(r.config.architecture));
    pairs.text("general.type", "adapter");
    pairs.text("general.name", fs::path(r.path).stem().string());
    pairs.text("adapter.type", "lora");
    pairs.number("adapter.lora.alpha", lora.scale() * static_cast<double>(lora.rank));
    std::vector<GgufTensor> tensors;
    for (const Parameter& p : list.all()) {
        const std::string module = p.name.substr(0, p.name.rfind(p.role == Role::lora_a ? ".lora_A" : ".lora_B"));
        tensors.push_back({name_in_file(module + ".weight") + (p.role == Role::lora_a ? ".lora_a" : ".lora_b"), p.shape,
                           find_gguf_type("F32")});
    }
    OneFile file(r.path, pairs, tensors);
    std::vector<float> elements;
    for (const Parameter& p : list.all()) {
        const float* from = slice_of(flat, p).as<float>();
        elements.assign(from, from + p.size());
        const int64_t heads = p.role == Role::lora_b ? interleaved_heads(r.config, *p.adapted) : 0;
        if (heads) interleave_heads(view_of(elements), heads, r.config.head_dim);
        file.write(view_of(elements));
    }
    file.commit();
}

}  // namespace colonnade
