#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

/// Whether the parameter has further rows for tokens that training adds.
bool grows(const TensorInfo& stored, const Parameter& p, const std::string& path) {
    const bool by_token = p.role == Role::embedding || p.role == Role::lm_head;
    return by_token && stored.shape.size() == 2 && stored.shape[1] == p.shape[1] && stored.shape[0] < p.shape[0] &&
           stored.shape[0] == read_model_config(path).vocab_size;
}

template <typename T>
void fill_with_mean(T* matrix, int64_t rows, int64_t all_rows, int64_t width) {
    std::vector<double> mean(static_cast<size_t>(width));
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t j = 0; j < width; ++j)
            mean[static_cast<size_t>(j)] += static_cast<double>(matrix[row * width + j]);
    for (int64_t row = rows; row < all_rows; ++row)
        for (int64_t j = 0; j < width; ++j)
            matrix[row * width + j] = static_cast<T>(mean[static_cast<size_t>(j)] / static_cast<double>(rows));
}

}  // namespace

WeightFolder::WeightFolder(const ParameterList& list, const ModelConfig& config, const std::string& path)
    : weights_(path), tied_(config.tie_word_embeddings) {
    std::vector<std::string> problems;
    for (const Parameter& p : list.all()) {
        const TensorInfo* info = find(p);
        if (!info && p.role == Role::score_head) continue;  // a language model that becomes a reward model
        if (!info)
            problems.push_back(fmt::format("'{}' {} is missing", p.name, shape_text(p.shape)));
        else if (info->shape != p.shape && !grows(*info, p, path))
            problems.push_back(fmt::format("'{}' is {}, config.json makes it {}", info->name, shape_text(info->shape),
                                           shape_text(p.shape)));
    }
    const std::string head = entry_of(Role::lm_head).name;
    for (const TensorInfo& info : weights_.tensors()) {
        const bool ignored =
            info.name.ends_with("rotary_emb.inv_freq") || ((tied_ || config.score_head) && info.name == head);
        if (!list.named(info.name) && !ignored)
            problems.push_back(
                fmt::format("'{}' {} belongs to no part of the model", info.name, shape_text(info.shape)));
    }
    if (!problems.empty()) {
        constexpr size_t shown = 12;
        const size_t more = problems.size() > shown ? problems.size() - shown : 0;
        problems.resize(problems.size() - more);
        fail(Exit::data, "{}: the tensors do not fit config.json: {}{}", path, fmt::join(problems, "; "),
             more ? fmt::format("; and {} more", more) : "");
    }
    if (tied_ && !config.score_head && weights_.head_differs_from_embedding())
        fail(Exit::data, "{}: '{}' differs from the embedding, but the model was made with a tied head", path, head);
}

void WeightFolder::read(const Parameter& parameter, const Tensor& into) const {
    const TensorInfo& stored = *find(parameter);
    const int64_t read = stored.numel();
    weights_.read(stored, into.slice(0, 0, read));
    if (read == into.numel()) return;
    const int64_t width = parameter.shape[1];
    dispatch_float(into.dtype,
                   [&]<typename T>() { fill_with_mean(into.as<T>(), read / width, into.numel() / width, width); });
}

const TensorInfo* WeightFolder::find(const Parameter& parameter) const {
    const TensorInfo* info = weights_.find(parameter.name);
    if (info || !tied_ || parameter.role != Role::embedding) return info;
    return weights_.find(entry_of(Role::lm_head).name);
}

void load_weights(const ParameterList& list, const ModelConfig& config, const std::string& path, const Tensor& flat) {
    const WeightFolder weights(list, config, path);
    for (const Parameter& p : list.all())
        if (weights.has(p)) weights.read(p, slice_of(flat, p));
}

std::vector<NamedTensor> named_tensors(const ParameterList& list, const Tensor& flat) {
    std::vector<NamedTensor> tensors;
    for (auto p = list.all().rbegin(); p != list.all().rend(); ++p)
        tensors.push_back({p->name, slice_of(flat, *p), p->shape});
    return tensors;
}

}  // namespace colonnade
