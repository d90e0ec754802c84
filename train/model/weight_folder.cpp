#include "train/model/weight_folder.h"

namespace colonnade {

WeightFolder::WeightFolder(const ParameterList& list, const ModelConfig& config, const std::string& folder)
    : reader_(folder) {
    std::vector<std::string> problems;
    for (const Parameter& p : list.all()) {
        const TensorInfo* info = reader_.find(p.name);
        if (!info && p.role == Role::score_head) continue;  // a language model that becomes a reward model
        if (!info)
            problems.push_back(fmt::format("'{}' {} is missing", p.name, shape_text(p.shape)));
        else if (info->shape != p.shape)
            problems.push_back(fmt::format("'{}' is {}, config.json makes it {}", p.name, shape_text(info->shape),
                                           shape_text(p.shape)));
    }
    const bool ignores_lm_head = config.tie_word_embeddings || config.score_head;
    for (const TensorInfo& info : reader_.tensors()) {
        const bool ignored = info.name.ends_with("rotary_emb.inv_freq") ||
                             (ignores_lm_head && info.name == entry_of(Role::lm_head).name);
        if (!list.named(info.name) && !ignored)
            problems.push_back(
                fmt::format("'{}' {} belongs to no part of the model", info.name, shape_text(info.shape)));
    }
    if (!problems.empty()) {
        constexpr size_t shown = 12;
        const size_t more = problems.size() > shown ? problems.size() - shown : 0;
        problems.resize(problems.size() - more);
        fail(Exit::data, "{}: the tensors do not fit config.json: {}{}", folder, fmt::join(problems, "; "),
             more ? fmt::format("; and {} more", more) : "");
    }
}

void load_weights(const ParameterList& list, const ModelConfig& config, const std::string& folder, const Tensor& flat) {
    const WeightFolder weights(list, config, folder);
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
