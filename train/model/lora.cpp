#include "train/model/lora.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/device/gemm.h"

namespace colonnade {
namespace {

/// Modules of all families, projection by projection; those of one projection in the order of their rows.
std::vector<const ParameterEntry*> adaptable(Projection projection) {
    std::vector<const ParameterEntry*> modules;
    for (const ParameterEntry& e : parameter_table().block)
        if (e.is_projection_weight() && e.view.projection == projection) modules.push_back(&e);
    return modules;
}

/// A module of the model that has an adapter.
struct Adapted {
    const ParameterEntry* module;
    int64_t begin, out, in;  ///< its columns of the projection's output begin here; its sizes
};
std::vector<Adapted> adapted_modules(const ModelConfig& config, const LoraSettings& settings, Projection projection) {
    std::vector<Adapted> modules;
    int64_t begin = 0;
    for (const ParameterEntry* e : adaptable(projection)) {
        if (!e->exists(config)) continue;
        const int64_t out = e->rows(config);
        if (settings.targets.contains(e->module_name())) modules.push_back({e, begin, out, e->columns(config)});
        begin += out;
    }
    return modules;
}

Parameter adapter(Role role, const Adapted& m, int64_t rank, int64_t layer) {
    const bool a = role == Role::lora_a;
    return {
        .name = fmt::format("model.layers.{}.{}.{}.weight", layer, m.module->module_path(), a ? "lora_A" : "lora_B"),
        .shape = a ? std::vector{rank, m.in} : std::vector{m.out, rank},
        .init = a ? Init::uniform : Init::zeros,
        .role = role,
        .layer = layer,
        .adapted = m.module->role};
}

}  // namespace

double LoraSettings::scale() const {
    const auto r = static_cast<double>(rank);
    return alpha / (rslora ? std::sqrt(r) : r);
}

int64_t LoraSettings::width(Projection projection) const {
    std::set<std::string> modules;  // two families may have an entry each for one module
    for (const ParameterEntry* e : adaptable(projection))
        if (targets.contains(e->module_name())) modules.insert(e->module_name());
    return rank * std::ssize(modules);
}

const std::vector<std::string>& lora_modules() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        for (const Projection projection : all_projections)
            for (const ParameterEntry* e : adaptable(projection)) {
                const std::string name = e->module_name();
                if (std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
            }
        return all;
    }();
    return names;
}

ParameterList lora_parameters(const ModelConfig& config, const LoraSettings& settings) {
    ParameterList list;
    if (settings.head) {
        const ParameterList model(config);
        require(model.head(), "the model has no head of its own to train");
        list.add(*model.head());
        list.align();
    }
    for (int64_t layer = config.num_hidden_layers - 1; layer >= 0; --layer)
        for (size_t i = all_projections.size(); i-- > 0;) {
            const std::vector<Adapted> modules = adapted_modules(config, settings, all_projections[i]);
            for (const Adapted& m : modules) list.add(adapter(Role::lora_a, m, settings.rank, layer));
            list.align();
            for (const Adapted& m : modules) {
                list.add(adapter(Role::lora_b, m, settings.rank, layer));
                list.align();
            }
        }
    return list;
}

void view_lora(const ModelConfig& config, const LoraSettings& settings, const ParameterList& list, const Tensor& flat,
               ModelParameters& model) {
    model.blocks.resize(static_cast<size_t>(config.num_hidden_layers));
    if (const Parameter* head = list.head()) model.head = view_of(flat, *head);
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
        for (const Projection projection : all_projections) {
            const std::vector<Adapted> modules = adapted_modules(config, settings, projection);
            if (modules.empty()) continue;
            LowRank& adapters = model.blocks[static_cast<size_t>(layer)].linear[projection].adapters;
            const int64_t begin = list.find(Role::lora_a, layer, modules.front().module->role)->begin;
            const int64_t rows = settings.rank * std::ssize(modules), in = modules.front().in;
            adapters.a = flat.slice(0, begin, begin + rows * in).view({rows, in});
            adapters.scale = settings.scale();
            for (const Adapted& m : modules)
                adapters.slices.push_back({m.begin, view_of(flat, *list.find(Role::lora_b, layer, m.module->role))});
        }
}

void merge_lora(const LoraSettings& settings, const ParameterList& list, const Tensor& flat, const ParameterList& model,
                const Tensor& weights) {
    require(flat.dtype == weights.dtype, "merge_lora: adapters are {}, weights {}", name_of(flat.dtype),
            name_of(weights.dtype));
    if (const Parameter* head = list.head()) {
        const Tensor from = slice_of(flat, *head);
        std::memcpy(slice_of(weights, *model.head()).data, from.data, from.bytes());
    }
    for (const Parameter& p : list.all()) {
        if (p.role != Role::lora_a) continue;
        const Tensor a = view_of(flat, p), b = view_of(flat, *list.find(Role::lora_b, p.layer, p.adapted));
        const Tensor w = view_of(weights, *model.find(*p.adapted, p.layer));
        gemm({}, {.c = w, .a = b, .b = a, .alpha = settings.scale(), .beta = 1});
    }
}

}  // namespace colonnade
