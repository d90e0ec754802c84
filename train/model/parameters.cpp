#include "train/model/parameters.h"

#include <algorithm>
#include <cmath>

#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// Adds the entries that the model has; each group of one view is aligned.
void add_entries(ParameterList& list, const ModelConfig& config, std::span<const ParameterEntry> entries,
                 int64_t layer) {
    const bool in_block = layer >= 0 && layer < config.num_hidden_layers;
    const ParameterEntry* before = nullptr;
    for (const ParameterEntry& e : entries) {
        if (!e.exists(config)) continue;
        if (!before || !(before->view == e.view)) list.align();
        before = &e;
        Parameter p{.name = in_block ? fmt::format("model.layers.{}.{}", layer, e.name) : e.name,
                    .shape = {e.rows(config)},
                    .decay = e.decay,
                    .init = e.init,
                    .role = e.role,
                    .layer = layer};
        if (e.columns) p.shape.push_back(e.columns(config));
        list.add(std::move(p));
    }
}

/// Extends a view by a parameter that follows it in memory.
void extend(Tensor& view, const FlatElements& elements, const Parameter& p) {
    const int64_t columns = p.shape.size() == 2 ? p.shape[1] : 1;
    const int64_t rows = (view.rank == 0 ? 0 : view.size(0)) + p.shape[0];
    const Tensor all = elements(p.end() - rows * columns, p.end());
    view = p.shape.size() == 2 ? all.view({rows, columns}) : all;
}

template <typename T>
void draw(const Parameter& p, const Initialization& how, T* w) {
    const int64_t n = p.size(), drawn = std::min(n, how.distinct);
    const Philox random{how.seed, p.stream};
    const bool normal = p.init == Init::normal;
    const double bound = normal ? 0 : 1 / std::sqrt(static_cast<double>(p.shape[1]));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < drawn; ++i) {
        const auto at = static_cast<uint64_t>(i);
        w[i] = static_cast<T>(normal ? how.range * random.normal(at) : bound * (2 * random.uniform(at) - 1));
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = drawn; i < n; i += drawn) std::copy_n(w, std::min(drawn, n - i), w + i);
}

}  // namespace

int64_t Parameter::size() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
}

bool Parameter::in_block() const {
    return is_adapter() || !entry_of(role).view.of_model;
}

void ParameterList::add(Parameter parameter) {
    constexpr uint64_t adapter_streams = uint64_t{1} << 62;  // apart from the streams of the model's own parameters
    parameter.begin = size_;
    parameter.stream = all_.size() | (parameter.is_adapter() ? adapter_streams : 0);
    size_ = parameter.end();
    all_.push_back(std::move(parameter));
}

void ParameterList::align() {
    constexpr int64_t elements = 64;  // 256 bytes of fp32
    size_ = (size_ + elements - 1) / elements * elements;
}

void ParameterList::append(const Parameter& parameter) {
    const bool beside = !all_.empty() && all_.back().layer == parameter.layer &&
                        entry_of(all_.back().role).view == entry_of(parameter.role).view;
    if (!beside) align();
    add(parameter);
}

ParameterList::ParameterList(const ModelConfig& config) {
    const ParameterTable& table = parameter_table();
    add_entries(*this, config, table.head, config.num_hidden_layers);
    for (int64_t layer = config.num_hidden_layers - 1; layer >= 0; --layer)
        add_entries(*this, config, table.block, layer);
    add_entries(*this, config, table.embedding, embedding_layer);
    align();
}

const Parameter* ParameterList::find(Role role) const {
    const auto found = std::ranges::find(all_, role, &Parameter::role);
    return found == all_.end() ? nullptr : &*found;
}

const Parameter* ParameterList::find(Role role, int64_t layer, std::optional<Role> adapted) const {
    const auto found = std::ranges::find_if(
        all_, [&](const Parameter& p) { return p.role == role && p.layer == layer && p.adapted == adapted; });
    return found == all_.end() ? nullptr : &*found;
}

const Parameter* ParameterList::named(std::string_view name) const {
    const auto found = std::ranges::find(all_, name, &Parameter::name);
    return found == all_.end() ? nullptr : &*found;
}

const Parameter* ParameterList::head() const {
    const Parameter* const score = find(Role::score_head);
    return score ? score : find(Role::lm_head);
}

int64_t ParameterList::count() const {
    int64_t n = 0;
    for (const Parameter& p : all_) n += p.size();
    return n;
}

Tensor slice_of(const Tensor& flat, const Parameter& p) {
    return flat.slice(0, p.begin, p.end());
}

Tensor view_of(const Tensor& flat, const Parameter& p) {
    const Tensor slice = slice_of(flat, p);
    return p.shape.size() == 2 ? slice.view({p.shape[0], p.shape[1]}) : slice;
}

std::vector<LayerRange> layer_ranges(const ParameterList& list) {
    std::vector<LayerRange> ranges;
    for (const Parameter& p : list.all()) {
        if (!ranges.empty() && ranges.back().layer == p.layer) continue;
        if (!ranges.empty()) ranges.back().end = p.begin;
        ranges.push_back({p.layer, p.begin, list.size()});
    }
    return ranges;
}

void add_views(const ParameterList& list, const Tensor& flat, ModelParameters& model) {
    add_views(
        list, [&](int64_t begin, int64_t end) { return flat.slice(0, begin, end); }, model);
}

void add_views(const ParameterList& list, const FlatElements& elements, ModelParameters& model) {
    for (const Parameter& p : list.all()) {
        const ParameterEntry::View& view = entry_of(p.role).view;
        if (view.of_model) {
            extend(model.*view.of_model, elements, p);
            continue;
        }
        if (std::ssize(model.blocks) <= p.layer) model.blocks.resize(static_cast<size_t>(p.layer) + 1);
        BlockParameters& block = model.blocks[static_cast<size_t>(p.layer)];
        extend(view.of_block ? block.*view.of_block : block.linear[view.projection].*view.part, elements, p);
    }
}

void add_quantised(const ParameterList& list, const std::vector<QuantisedMatrix>& matrices, ModelParameters& model) {
    for (size_t i = 0; i < matrices.size(); ++i) {
        const Parameter& p = list.all()[i];
        if (std::ssize(model.blocks) <= p.layer) model.blocks.resize(static_cast<size_t>(p.layer) + 1);
        BlockParameters& block = model.blocks[static_cast<size_t>(p.layer)];
        block.linear[entry_of(p.role).view.projection].quantised.push_back(matrices[i]);
    }
}

ModelParameters view_parameters(const ParameterList& list, const Tensor& flat) {
    ModelParameters model;
    add_views(list, flat, model);
    if (model.head.rank == 0) model.head = model.embedding;
    return model;
}

int64_t lowest_layer(const ParameterList& list) {
    int64_t lowest = INT64_MAX;
    for (const Parameter& p : list.all()) lowest = std::min(lowest, p.layer);
    return lowest;
}

bool is_overwritten(const Parameter& p, const ModelConfig& config) {
    if (p.role == Role::embedding) return config.tie_word_embeddings && !config.score_head;  // it is the head
    return p.role == Role::lm_head || (!p.is_adapter() && entry_of(p.role).is_projection_weight());
}

void initialize(const Parameter& p, const Initialization& how, const Tensor& into) {
    dispatch_float(into.dtype, [&]<typename T>() {
        T* const w = into.as<T>();
        if (p.init == Init::normal || p.init == Init::uniform)
            draw(p, how, w);
        else
            std::fill_n(w, p.size(), p.init == Init::ones ? T{1} : T{0});
    });
}

void initialize(const ParameterList& list, const Initialization& how, const Tensor& flat) {
    dispatch_float(flat.dtype, [&]<typename T>() {
        T* const data = flat.as<T>();
        const int64_t size = flat.numel();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < size; ++i) data[i] = 0;
    });
    for (const Parameter& p : list.all()) initialize(p, how, slice_of(flat, p));
}

}  // namespace colonnade
