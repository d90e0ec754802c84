// What a Learner keeps: its memory, the state of the optimizer, and the updates.

#include <algorithm>
#include <utility>

#include "train/optimizer/moment_codes.h"
#include "train/step/learner.h"

namespace colonnade {
namespace {

bool takes_muon(const Parameter& p) {
    return p.shape.size() == 2 && p.in_block();
}

/// The elements that take AdamW beside Muon: from the first of neighbours to the next matrix.
std::vector<Range> ranges_of_adamw(const ParameterList& list) {
    std::vector<Range> ranges;
    bool open = false;
    for (const Parameter& p : list.all()) {
        if (open == !takes_muon(p)) continue;
        if (open)
            ranges.back().end = p.begin;
        else
            ranges.push_back({p.begin, list.size()});
        open = !open;
    }
    return ranges;
}

int64_t size_of(const std::vector<Range>& ranges) {
    int64_t elements = 0;
    for (const Range& r : ranges) elements += r.size();
    return elements;
}

MuonWorkspace::Sizes largest_matrix(const ParameterList& list) {
    MuonWorkspace::Sizes sizes;
    for (const Parameter& p : list.all()) {
        if (!takes_muon(p)) continue;
        sizes.elements = std::max(sizes.elements, p.size());
        sizes.shorter_side = std::max(sizes.shorter_side, std::min(p.shape[0], p.shape[1]));
    }
    return sizes;
}

}  // namespace

int64_t OptimizerArray::index_of(int64_t element) const {
    if (parts.empty()) return (element + elements - 1) / elements;
    int64_t before = 0;
    for (const Range& part : parts) before += std::clamp<int64_t>(element - part.begin, 0, part.size());
    return before;
}

ParameterList trained_parameters(const ModelConfig& config, const LearnerOptions& o) {
    if (o.lora) return lora_parameters(config, *o.lora);
    return o.freeze ? split_parameters(config, *o.freeze).trained : ParameterList(config);
}

/// A base's parameters: those that are quantised, or the others.
static ParameterList part_of_base(const ModelConfig& config, bool quantised) {
    const ParameterList whole(config);
    ParameterList part;
    for (const Parameter& p : whole.all())
        if (entry_of(p.role).is_projection_weight() == quantised) part.append(p);
    part.align();
    return part;
}

ParameterList quantised_parameters(const ModelConfig& config, const LearnerOptions& o) {
    require(!o.base_code || o.lora, "a quantised base without adapters");
    return o.base_code ? part_of_base(config, true) : ParameterList();
}

ParameterList base_parameters(const ModelConfig& config, const LearnerOptions& o) {
    if (o.base_code) return part_of_base(config, false);
    if (o.lora) return ParameterList(config);
    return o.freeze ? split_parameters(config, *o.freeze).frozen : ParameterList();
}

size_t state_bytes(const ModelConfig& config, const LearnerOptions& o, Device device) {
    const ParameterList list = trained_parameters(config, o);
    const auto kept = static_cast<size_t>(GradientSync(list, o.sync).state_size());
    const DType moments = o.moments_on(device);
    const size_t units = moments == DType::u8 ? kept / moment_block * sizeof(float) : 0;
    const size_t in_v = o.muon_momentum ? static_cast<size_t>(size_of(ranges_of_adamw(list))) : kept;
    return kept * bytes_of(sum_dtype(o.dtype_on(device))) + (kept + in_v) * bytes_of(moments) + 2 * units;
}

Learner::State Learner::State::lay_out(Arena& arena, const Lists& lists, const LearnerOptions& o,
                                       const GradientSync& sync) {
    State s;
    const ParameterList& parameters = lists.trained;
    const int64_t n = parameters.size(), kept = sync.state_size();
    const bool on_gpu = arena.device() == Device::cuda;
    const DType compute = o.dtype_on(arena.device()), master = sum_dtype(compute);
    const std::string group = o.lora ? "adapters" : "weights";
    if (lists.base.size() > 0) s.base = arena.tensor("frozen weights", compute, {lists.base.size()});
    for (const Parameter& p : lists.quantised.all())
        s.quantised.push_back(QuantisedMatrix::lay_out(arena, "frozen weights", *o.base_code, p.shape[0], p.shape[1]));
    s.weights = arena.tensor(on_gpu ? "master " + group : group, master, {on_gpu ? kept : n});
    if (on_gpu) s.compute_weights = arena.tensor(group, compute, {n});
    s.step_sums = arena.tensor("workspace", DType::f64, {LossSums::count + 3});
    s.eval_sums = arena.tensor("workspace", DType::f64, {LossSums::count});
    if (o.objective->needs_mismatched()) s.mismatched = arena.tensor("workspace", DType::f64, {1});
    if (!o.training) return s;
    const DType moments = o.moments_on(arena.device());
    s.gradients = arena.tensor("gradients", master, {n});
    s.m = arena.tensor("optimizer", moments, {kept});
    s.v = arena.tensor("optimizer", moments, {o.muon_momentum ? size_of(ranges_of_adamw(parameters)) : kept});
    if (o.muon_momentum) {
        require(!o.lora && !sync.sharded() && moments == master, "Muon with LoRA, sharded state or narrow moments");
        s.muon = MuonWorkspace::lay_out(arena, compute, largest_matrix(parameters));
    }
    if (moments == DType::u8) {
        s.m_units = arena.tensor("optimizer", DType::f32, {kept / moment_block});
        s.v_units = arena.tensor("optimizer", DType::f32, {kept / moment_block});
    }
    if (const size_t bytes = sync.scratch_bytes(arena.device(), master))
        s.comm_scratch = arena.tensor("gradient sync", DType::u8, {static_cast<int64_t>(bytes)});
    if (const int64_t hidden = sync.embedding_width())
        s.embedding_message = EmbeddingRows::lay_out(arena, o.max_packs * o.max_length, hidden, compute);
    if (on_gpu) {
        s.decay_map = arena.tensor("workspace", DType::i32, {decay_map_words(n)});
        s.norm_scratch = arena.tensor("workspace", DType::u8, {gradient_norm_scratch_bytes(n)});
        s.checksum = arena.tensor("workspace", DType::i64, {1});
    }
    return s;
}

std::vector<OptimizerArray> Learner::optimizer_state() const {
    if (!options_.training) return {};
    if (options_.muon_momentum) {
        std::vector<OptimizerArray> arrays = {{.name = "muon/m", .values = state_.m}};
        if (std::vector<Range> parts = ranges_of_adamw(parameters_); !parts.empty())
            arrays.push_back({.name = "muon/v", .values = state_.v, .parts = std::move(parts)});
        return arrays;
    }
    std::vector<OptimizerArray> all = {{.name = "adamw/m", .values = state_.m},
                                       {.name = "adamw/v", .values = state_.v}};
    if (state_.m_units.empty()) return all;
    all.push_back({.name = "adamw/m_units", .values = state_.m_units, .elements = moment_block});
    all.push_back({.name = "adamw/v_units", .values = state_.v_units, .elements = moment_block});
    return all;
}

HostCopy Learner::whole(const Tensor& state) const {
    HostCopy own = HostCopy::of(options_.gpu, state);
    if (!sharded(state)) return own;
    const bool first = sync_.options().rank == 0;
    HostCopy all = HostCopy::blank(own.tensor().dtype, first ? parameters_.size() : 0);
    sync_.collect(all.tensor(), own.tensor());
    return all;
}

HostCopy Learner::whole_model(const Tensor& trained) const {
    const ParameterList all(config_);
    HostCopy model = HostCopy::blank(DType::f32, all.size());
    std::fill_n(model.tensor().as<float>(), all.size(), 0.0f);
    const auto copy = [&](const Tensor& from, const Parameter& to) {
        std::copy_n(from.as<float>(), to.size(), slice_of(model.tensor(), *all.named(to.name)).as<float>());
    };
    for (const Parameter& p : base_parameters_.all())
        copy(HostCopy::of(options_.gpu, slice_of(state_.base, p)).tensor(), p);
    for (const Parameter& p : parameters_.all()) copy(slice_of(trained, p), p);
    return model;
}

void Learner::update_with_muon(const Context& ctx, const AdamWSettings& settings, double learning_rate) {
    const auto copies = [&](const auto& part) {
        return state_.compute_weights.empty() ? Tensor() : part(state_.compute_weights);
    };
    int64_t at = 0;
    for (const Range& r : ranges_of_adamw(parameters_)) {
        const auto part = [&](const Tensor& t) { return t.slice(0, r.begin, r.end); };
        adamw(ctx, {.weights = part(state_.weights),
                    .copy = copies(part),
                    .m = part(state_.m),
                    .v = state_.v.slice(0, at, at + r.size()),
                    .gradients = part(state_.gradients),
                    .clip = state_.norm_and_clip(),
                    .decay_map = state_.decay_map,
                    .parameters = parameters_,
                    .begin = r.begin,
                    .settings = settings,
                    .learning_rate = learning_rate,
                    .step = updates_,
                    .seed = options_.seed});
        at += r.size();
    }
    const MuonSettings of_muon{.momentum = *options_.muon_momentum, .weight_decay = settings.weight_decay};
    for (const Parameter& p : parameters_.all()) {
        if (!takes_muon(p)) continue;
        const auto part = [&](const Tensor& t) { return view_of(t, p); };
        muon(ctx, {.weights = part(state_.weights),
                   .copy = copies(part),
                   .m = part(state_.m),
                   .gradients = part(state_.gradients),
                   .clip = state_.norm_and_clip(),
                   .settings = of_muon,
                   .learning_rate = learning_rate,
                   .workspace = state_.muon});
    }
}

void Learner::update_weights(const Context& ctx, const AdamWSettings& settings, double learning_rate) {
    sync_.await_weights();  // no weight may change while it is still being sent
    if (options_.muon_momentum) return update_with_muon(ctx, settings, learning_rate);
    const std::vector<Range>& slices = sync_.state();
    // The last slice first: that is the order in which the next forward reads them.
    int64_t at = sync_.state_size();
    for (size_t i = slices.size(); i-- > 0;) {
        const Range& s = slices[i];
        at -= s.size();
        const auto kept = [&](const Tensor& t) { return t.slice(0, at, at + s.size()); };
        const auto units = [&](const Tensor& t) {
            return t.empty() ? t : t.slice(0, at / moment_block, (at + s.size()) / moment_block);
        };
        const auto of_all = [&](const Tensor& t) { return t.slice(0, s.begin, s.end); };
        const bool whole = state_.weights.numel() == parameters_.size();
        if (s.size() > 0)
            adamw(ctx, {.weights = whole ? of_all(state_.weights) : kept(state_.weights),
                        .copy = state_.compute_weights.empty() ? Tensor() : of_all(state_.compute_weights),
                        .m = kept(state_.m),
                        .v = kept(state_.v),
                        .m_units = units(state_.m_units),
                        .v_units = units(state_.v_units),
                        .gradients = of_all(state_.gradients),
                        .clip = state_.norm_and_clip(),
                        .decay_map = state_.decay_map,
                        .parameters = parameters_,
                        .begin = s.begin,
                        .settings = settings,
                        .learning_rate = learning_rate,
                        .step = updates_,
                        .seed = options_.seed});
        if (sync_.sharded()) sync_.share(compute_weights(), state_.comm_scratch, i);
    }
}

}  // namespace colonnade
