// What a Learner keeps: its memory, the state of the optimizer, and the updates.

#include <algorithm>
#include <cmath>
#include <utility>

#include "train/optimizer/moment_codes.h"
#include "train/step/learner.h"
#include "train/step/muon_parts.h"

namespace colonnade {
namespace {

int64_t size_of(const std::vector<Range>& ranges) {
    int64_t elements = 0;
    for (const Range& r : ranges) elements += r.size();
    return elements;
}

/// How many of the elements whose state a rank keeps have it in host memory.
int64_t hosted_elements(int64_t kept, const LearnerOptions& o) {
    const double share = std::clamp(o.offloaded_optimizer, 0.0, 1.0);
    const auto blocks = static_cast<int64_t>(std::ceil(share * static_cast<double>(kept) / moment_block));
    return std::min(kept, blocks * moment_block);
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

Learner::State Learner::State::lay_out(Arena& arena, Arena& host, const Lists& lists,
                                       const std::vector<int64_t>& hosted_blocks, const LearnerOptions& o,
                                       const GradientSync& sync) {
    State s;
    const ParameterList& parameters = lists.trained;
    const int64_t n = parameters.size(), kept = sync.state_size();
    const bool on_gpu = arena.device() == Device::cuda;
    const DType compute = o.dtype_on(arena.device()), master = sum_dtype(compute);
    const auto place = [&](const std::string& what, DType dtype, int64_t count, const std::vector<Range>& in_host) {
        return PlacedArray::lay_out(arena, host, what, dtype, count, in_host);
    };
    if (lists.base.size() > 0)
        s.base = place("frozen weights", compute, lists.base.size(),
                       ranges_of_blocks(layer_ranges(lists.base), hosted_blocks));
    if (o.base_code) s.quantised = QuantisedBase::lay_out(arena, host, lists.quantised, *o.base_code, hosted_blocks);
    // Adapters are small: they stay on the device.
    const std::vector<LayerRange> layers = layer_ranges(parameters);
    const std::vector<Range> of_blocks = o.lora ? std::vector<Range>() : ranges_of_blocks(layers, hosted_blocks);
    s.weights = place(o.lora ? "adapters" : "weights", compute, n, of_blocks);
    if (o.training) s.gradients = place("gradients", master, n, of_blocks);
    s.blocks = HostedBlocks::lay_out(
        arena, hosted_blocks,
        {{layer_ranges(lists.base), s.base}, {layers, s.weights}, {s.quantised.layers(), s.quantised.bytes()}},
        {layers, s.gradients});
    s.step_sums = arena.tensor("workspace", DType::f64, {LossSums::count + 3});
    s.eval_sums = arena.tensor("workspace", DType::f64, {LossSums::count});
    if (o.objective->needs_mismatched()) s.mismatched = arena.tensor("workspace", DType::f64, {1});
    if (!o.training) return s;
    const DType moments = o.moments_on(arena.device());
    const int64_t hosted = hosted_elements(kept, o);
    const auto place_state = [&](const char* what, DType dtype, int64_t count, int64_t elements = 1) {
        const int64_t first = (kept - hosted) / elements;
        return place(what, dtype, count,
                     hosted > 0 ? std::vector<Range>{{first, first + hosted / elements}} : std::vector<Range>());
    };
    if (on_gpu) s.low = place_state("low halves of weights", DType::i16, kept);
    s.m = place_state("optimizer", moments, kept);
    s.v = place_state("optimizer", moments, o.muon_momentum ? size_of(ranges_of_adamw(parameters)) : kept);
    if (o.muon_momentum) {
        require(hosted == 0, "Muon with its state in host memory");
        require(!o.lora && !sync.sharded() && moments == master, "Muon with LoRA, sharded state or narrow moments");
        s.muon = MuonWorkspace::lay_out(arena, compute, largest_matrix(parameters));
    }
    if (moments == DType::u8) {
        s.m_units = place_state("optimizer", DType::f32, kept / moment_block, moment_block);
        s.v_units = place_state("optimizer", DType::f32, kept / moment_block, moment_block);
    }
    if (const size_t bytes = sync.scratch_bytes(arena.device(), master))
        s.comm_scratch = arena.tensor("gradient sync", DType::u8, {static_cast<int64_t>(bytes)});
    if (const int64_t hidden = sync.embedding_width())
        s.embedding_message = EmbeddingRows::lay_out(arena, o.max_packs * o.max_length, hidden, compute);
    int64_t sums = 0;
    for (const Range& owned : sync.owned()) sums += square_sum_count(owned.size());
    s.square_sums = arena.tensor("workspace", DType::f64, {sums});
    if (on_gpu) {
        s.decay_map = arena.tensor("workspace", DType::i32, {decay_map_words(n)});
        s.checksum = arena.tensor("workspace", DType::i64, {1});
    }
    return s;
}

/// All numbers of an array, wherever they are.
static StateArray array_of(const char* name, const PlacedArray& placed, int64_t elements = 1) {
    StateArray array{.name = name, .elements = elements};
    for (const PlacedArray::Part& part : placed.parts()) array.parts.push_back({.values = part.values});
    array.dtype = sum_dtype(array.parts.front().values.dtype);
    return array;
}

std::vector<StateArray> Learner::optimizer_state() const {
    if (!options_.training) return {};
    if (options_.muon_momentum) {
        std::vector<StateArray> arrays = {array_of("muon/m", state_.m)};
        if (std::vector<Range> ranges = ranges_of_adamw(parameters_); !ranges.empty()) {
            arrays.push_back(array_of("muon/v", state_.v));
            arrays.back().ranges = std::move(ranges);
        }
        return arrays;
    }
    std::vector<StateArray> all = {array_of("adamw/m", state_.m), array_of("adamw/v", state_.v)};
    if (state_.m_units.empty()) return all;
    all.push_back(array_of("adamw/m_units", state_.m_units, moment_block));
    all.push_back(array_of("adamw/v_units", state_.v_units, moment_block));
    return all;
}

std::vector<Learner::KeptPiece> Learner::kept_pieces() const {
    std::vector<KeptPiece> pieces;
    int64_t at = 0;
    for (size_t slice = 0; slice < sync_.state().size(); ++slice) {
        const Range& s = sync_.state()[slice];
        for (int64_t begin = 0; begin < s.size();) {
            const PlacedArray::Part& weights = state_.weights.part_of(s.begin + begin);
            int64_t end = std::min(s.size(), weights.numbers.end - s.begin);
            bool hosted = weights.hosted;
            if (!state_.m.empty()) {  // all arrays of the optimizer have their border at the same element
                const PlacedArray::Part& moments = state_.m.part_of(at + begin);
                end = std::min(end, moments.numbers.end - at);
                hosted = hosted || moments.hosted;
            }
            if (hosted) end = std::min(end, begin + options_.hosted_piece);
            pieces.push_back({.kept = {at + begin, at + end},
                              .flat = {s.begin + begin, s.begin + end},
                              .slice = slice,
                              .hosted = hosted});
            begin = end;
        }
        at += s.size();
    }
    return pieces;
}

StateArray Learner::rounded_weights() const {
    return array_of("weights", state_.weights);
}

StateArray Learner::master_weights() const {
    StateArray array{.name = "weights", .dtype = sum_dtype(options_.compute_dtype())};
    for (const KeptPiece& piece : kept_pieces()) {
        const Tensor weights = state_.weights.slice(piece.flat.begin, piece.flat.end);
        if (state_.low.empty())
            array.parts.push_back({.values = weights});
        else
            array.parts.push_back({.values = state_.low.slice(piece.kept.begin, piece.kept.end), .top = weights});
    }
    return array;
}

HostCopy Learner::master_weight(const Parameter& p) const {
    require(!collects_weights(), "{}: this rank has a part of it", p.name);
    return sync_.sharded() ? HostCopy::of(nullptr, state_.weights.slice(p.begin, p.end()))
                           : master_weights().read(options_.gpu, {p.begin, p.end()});
}

HostCopy Learner::all_weights() const {
    if (!options_.gpu && sync_.sharded()) return HostCopy::of(nullptr, state_.weights.whole());
    const HostCopy own = master_weights().read(options_.gpu);
    if (!collects_weights()) return own;
    const bool first = sync_.options().rank == 0;
    HostCopy all = HostCopy::blank(own.tensor().dtype, first ? parameters_.size() : 0);
    sync_.collect(all.tensor(), own.tensor());
    return all;
}

void Learner::store_weights(int64_t begin, const Tensor& values) {
    const int64_t end = begin + values.numel();
    rounded_weights().write(options_.gpu, begin, values);
    state_.blocks.weights_changed();
    if (state_.low.empty()) return;
    const StateArray masters = master_weights();
    for (const KeptPiece& piece : kept_pieces()) {
        const int64_t first = std::max(begin, piece.flat.begin), last = std::min(end, piece.flat.end);
        if (first < last)
            masters.write(options_.gpu, piece.kept.begin + first - piece.flat.begin,
                          values.slice(0, first - begin, last - begin));
    }
}

HostCopy Learner::whole_model(const Tensor& trained) const {
    const ParameterList all(config_);
    HostCopy model = HostCopy::blank(DType::f32, all.size());
    std::fill_n(model.tensor().as<float>(), all.size(), 0.0f);
    const auto copy = [&](const Tensor& from, const Parameter& to) {
        std::copy_n(from.as<float>(), to.size(), slice_of(model.tensor(), *all.named(to.name)).as<float>());
    };
    for (const Parameter& p : base_parameters_.all())
        copy(array_of("base", state_.base).read(options_.gpu, {p.begin, p.end()}).tensor(), p);
    for (const Parameter& p : parameters_.all()) copy(slice_of(trained, p), p);
    return model;
}

}  // namespace colonnade
