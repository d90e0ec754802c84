#include "train/folders/initial_weights.h"

#include "train/folders/adapter_folder.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

void fill_base(const WeightFolder& model, Learner& learner) {
    learner.fill_base([&](const Parameter& p, const Tensor& into) {
        require(model.has(p) || !entry_of(p.role).is_projection_weight(), "{} is missing", p.name);
        if (model.has(p)) model.read(p, into);
    });
}

}  // namespace

void load_base(const std::string& folder, Learner& learner) {
    fill_base(WeightFolder(ParameterList(learner.config()), learner.config(), folder), learner);
}

void load_model(const std::string& folder, uint64_t seed, Learner& learner) {
    const Initialization random{.seed = seed, .range = learner.config().initializer_range};
    if (folder.empty()) {
        require(!learner.has_base(), "a base needs a folder");
        return learner.fill_weights([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
    }
    const WeightFolder model(ParameterList(learner.config()), learner.config(), folder);
    fill_base(model, learner);
    learner.fill_weights([&](const Parameter& p, const Tensor& into) {
        if (model.has(p))
            model.read(p, into);
        else
            initialize(p, random, into);
    });
}

void load_or_initialize(const Config& config, Learner& learner) {
    load_model(config.model_name_or_path, static_cast<uint64_t>(config.seed), learner);
    const std::string& adapter = config.adapter_name_or_path;
    if (adapter.empty()) return;
    learner.fill_weights([&](const Tensor& weights) { load_adapter(adapter, learner.parameters(), weights); });
}

}  // namespace colonnade
