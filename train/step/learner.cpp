#include "train/step/learner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/device/device_memory.h"
#include "engine/device/planted_bug.h"
#include "engine/io/sha256.h"
#include "layers/unpaired_loss.h"

namespace colonnade {
Learner::Learner(const ModelConfig& config, const LearnerOptions& options)
    : config_(config),
      options_(options),
      base_parameters_(colonnade::base_parameters(config, options)),
      quantised_parameters_(quantised_parameters(config, options)),
      parameters_(trained_parameters(config, options)),
      lowest_layer_(lowest_layer(parameters_)),
      sync_(parameters_, options.sync),
      hosted_blocks_(spread_blocks(options.offloaded_weights, config.num_hidden_layers)),
      arena_(options.device(), plan(config, options, options.device()).bytes()),
      host_(pinned_memory(config, options)),
      transfers_(options.gpu),
      state_(State::lay_out(arena_, host_, {parameters_, base_parameters_, quantised_parameters_}, hosted_blocks_,
                            options_, sync_)),
      state_end_(arena_.mark()),
      host_state_end_(host_.mark()) {
    require(
        hosted_blocks_.empty() || (options.sync.ranks == 1 && !sync_.options().communicator && !options.muon_momentum),
        "blocks in host memory on several ranks or with Muon");
    state_.blocks.use(&transfers_);
    const auto& lora = options_.lora;
    // Finds elements of an array on the device: in place, or in the slot of their block.
    const auto on_device = [](const PlacedArray& array, const FlatElements& in_slot) -> FlatElements {
        return [&array, in_slot](int64_t begin, int64_t end) {
            return array.part_of(begin).hosted ? in_slot(begin, end) : array.slice(begin, end);
        };
    };
    const auto slot_of = [&](size_t array) -> FlatElements {
        return [=, this](int64_t begin, int64_t end) { return state_.blocks.weights_in_slot(array, begin, end); };
    };
    const auto add_trained = [&](const PlacedArray& array, const FlatElements& in_slot, ModelParameters& views) {
        views.blocks.resize(static_cast<size_t>(config_.num_hidden_layers));
        if (lora)
            view_lora(config_, *lora, parameters_, array.whole(), views);
        else
            add_views(parameters_, on_device(array, in_slot), views);
        if (config_.tie_word_embeddings && !config_.score_head) views.head = views.embedding;
    };
    ModelParameters weights;
    add_views(base_parameters_, on_device(state_.base, slot_of(0)), weights);
    std::vector<QuantisedMatrix> matrices;
    for (size_t i = 0; i < state_.quantised.size(); ++i)
        matrices.push_back(state_.quantised.matrix(i, on_device(state_.quantised.bytes(), slot_of(2))));
    add_quantised(quantised_parameters_, matrices, weights);
    add_trained(state_.weights, slot_of(1), weights);
    model_ = std::make_unique<Transformer>(config_, weights);
    begin_mismatched();
    if (!state_.decay_map.empty()) options_.gpu->upload(state_.decay_map, decay_map(parameters_).data());
    if (!options_.training) return;
    add_trained(
        state_.gradients, [this](int64_t begin, int64_t end) { return state_.blocks.gradients_in_slot(begin, end); },
        gradient_views_);
    sync_memory_ = {.gradients = hosted_blocks_.empty() ? state_.gradients.whole() : Tensor(),
                    .embedding = gradient_views_.embedding,
                    .scratch = state_.comm_scratch,
                    .embedding_message = state_.embedding_message};
    int64_t at = 0;
    for (const Range& owned : sync_.owned()) {
        const int64_t count = square_sum_count(owned.size());
        square_sums_.push_back(state_.square_sums.slice(0, at, at + count));
        at += count;
    }
    clear_gradients();  // the gaps between parameters stay zero
    clear(context(), state_.held());
}

int64_t Learner::offloaded_blocks() const {
    return Workspace::layout(options_, options_.device(), {}, Pass::training, lowest_layer_)
        .offloaded_of(options_.training ? config_.num_hidden_layers : 0);
}

Context Learner::context(const ContextOptions& o) const {
    return {.device = options_.device(), .profile = o.profile, .gpu = options_.gpu, .deterministic = o.deterministic};
}

// --- Loading ---

void Learner::fill_weights(const std::function<void(const Parameter&, const Tensor&)>& fill) {
    state_.blocks.weights_changed();
    for (const Parameter& p : parameters_.all()) {
        if (!options_.gpu) {
            fill(p, state_.weights.slice(p.begin, p.end()));
            continue;
        }
        const HostCopy host = HostCopy::blank(DType::f32, p.size());
        fill(p, host.tensor());
        store_weights(p.begin, host.tensor());
    }
}

void Learner::fill_weights(const std::function<void(const Tensor&)>& fill) {
    if (!options_.gpu && hosted_blocks_.empty()) return fill(state_.weights.whole());
    const HostCopy host = HostCopy::blank(sum_dtype(options_.compute_dtype()), parameters_.size());
    fill(host.tensor());
    store_weights(0, host.tensor());
}

void Learner::fill_base(const std::function<void(const Parameter&, const Tensor&)>& fill) {
    std::string hashes;
    const auto load = [&](const Parameter& p, const Tensor& into) {
        fill(p, into);
        hashes += sha256_as_bf16(into);
    };
    size_t next = 0;  // of the quantised weights
    const ParameterList whole(config_);
    // One buffer for all that is quantised: fresh pages for every matrix would take as long as its codes.
    int64_t largest = 0;
    for (const Parameter& p : quantised_parameters_.all()) largest = std::max(largest, p.size());
    const HostCopy buffer = HostCopy::blank(sum_dtype(options_.compute_dtype()), largest);
    for (const Parameter& p : options_.base_code ? whole.all() : base_parameters_.all()) {
        if (options_.base_code && entry_of(p.role).is_projection_weight()) {
            const Tensor values = buffer.tensor().slice(0, 0, p.size());
            load(p, values);
            const QuantisedMatrix m = state_.quantised.stored(next++);
            Gpu* const gpu = m.codes.device == Device::cuda ? options_.gpu : nullptr;
            quantise({.out = m, .in = values, .name = p.name.c_str(), .gpu = gpu});
        } else {
            const Parameter& kept = options_.base_code ? *base_parameters_.named(p.name) : p;
            const HostCopy host = HostCopy::to_fill(options_.gpu, state_.base.slice(kept.begin, kept.end()));
            load(p, host.tensor());
            host.store();
        }
    }
    base_hash_ = sha256(hashes);
    state_.blocks.weights_changed();
}

// --- The step ---

void Learner::begin_step() {
    micro_steps_ = 0;
    clear_sums(state_.loss_sums());
    clear(context(), state_.square_sums);
    if (options_.lora) return clear(context(), state_.gradients.whole());
    for (const Parameter& p : parameters_.all())
        if (!is_overwritten(p, config_) && !state_.blocks.has(p.layer))
            clear(context(), state_.gradients.slice(p.begin, p.end()));
}

void Learner::accumulate(const Context& ctx, const Batch& batch, const MicroStep& micro) {
    if (!objective().learns_from(batch)) return;  // a pack without samples, which fills up the last step of an epoch
    const bool first = micro_steps_++ == 0;
    if (planted_bug == PlantedBug::micro_step && micro_steps_ == 2) return;
    const bool by_rows = micro.last && sync_.embedding_by_rows();
    const ModelGradients gradients{.views = gradient_views_,
                                   // Gradients of adapters are few: they are cleared, and always accumulate.
                                   .matrices = first && !options_.lora ? Grad::overwrite : Grad::accumulate,
                                   .embedding = !by_rows,
                                   .lowest = lowest_layer_};
    prepare(ctx, batch, micro.total, Pass::training);
    TransformerInput& input = workspace_.batch.input;
    input.dropout = dropout();
    state_.blocks.begin(!first);
    input.before_backward = [&](int64_t layer) { state_.blocks.before_backward(ctx, layer); };
    input.after_backward = [&](int64_t layer) {
        if (state_.blocks.has(layer)) leave_block(ctx, layer);
        if (micro.last) sync_.start(ctx, sync_memory_, layer);
    };
    compute_reference(ctx, batch);
    if (const double alpha = options_.neftune_noise_alpha; alpha > 0) {
        workspace_.noise.fill(ctx, batch, {.alpha = alpha, .hidden = config_.hidden_size, .update = updates_});
        input.noise = {.scales = workspace_.noise.scales, .streams = workspace_.noise.streams, .seed = options_.seed};
    }
    model_->forward(ctx, input, workspace_.acts);
    ObjectiveStep step = objective_step();
    step.sums = state_.loss_sums();
    step.total = micro.total;
    step.gradients = &gradients;
    objective().run(ctx, step);
    model_->backward(ctx, input, workspace_.acts, gradients);
    if (by_rows) sync_.add_embedding(ctx, sync_memory_, workspace_.acts.dstream, input.token_index);
}

LossSums Learner::evaluate(const Context& ctx, const Batch& batch, std::vector<double>* nll) {
    if (!objective().learns_from(batch)) return {};
    const double total = objective().total(batch);
    clear_sums(state_.eval_sums);
    prepare(ctx, batch, total, Pass::inference);
    compute_reference(ctx, batch);
    model_->forward(ctx, workspace_.batch.input, workspace_.acts);
    ObjectiveStep step = objective_step();
    step.sums = state_.eval_sums;
    step.total = total;
    objective().run(ctx, step);
    if (nll) *nll = read(workspace_.head.nll);
    return LossSums::of(read(state_.eval_sums));
}

void Learner::begin_mismatched() {
    mismatched_count_ = 0;
    if (!state_.mismatched.empty()) clear(context(), state_.mismatched);
}

void Learner::add_mismatched(const Context& ctx, const Batch& batch) {
    require(objective().needs_mismatched(), "mismatched answers for an objective that needs none");
    if (batch.samples == 0) return;
    prepare(ctx, batch, 1, Pass::inference);
    compute_reference(ctx, batch);
    model_->forward(ctx, workspace_.batch.input, workspace_.acts);
    objective().measure(ctx, objective_step());
    add_log_ratios(
        ctx, {.sum = state_.mismatched, .logps = workspace_.head.answers, .reference = workspace_.batch.reference});
}

void Learner::end_mismatched(const Context& ctx, double count) {
    if (state_.mismatched.empty()) return;
    mismatched_count_ = count;
    sync_.combine(ctx, {{.values = state_.mismatched}});
}

std::vector<double> Learner::measure(const Context& ctx, const Batch& batch) {
    if (batch.sequences.empty()) return {};
    prepare(ctx, batch, 1, Pass::inference);
    model_->forward(ctx, workspace_.batch.input, workspace_.acts);
    objective().measure(ctx, objective_step());
    return measured(batch);
}

TeacherLists Learner::teach(const Context& ctx, const Batch& batch) {
    TeacherLists lists;
    if (batch.targets.empty()) return lists;
    prepare(ctx, batch, 1, Pass::inference);
    model_->forward(ctx, workspace_.batch.input, workspace_.acts);
    objective().run(ctx, objective_step());
    const HostCopy ids = HostCopy::of(options_.gpu, workspace_.head.teacher_ids),
                   log_probs = HostCopy::of(options_.gpu, workspace_.head.teacher_log_probs);
    const int64_t top = ids.tensor().size(1);
    for (int64_t target = 0; target < std::ssize(batch.targets); ++target) {
        for (int64_t i = target * top; i < (target + 1) * top; ++i) {
            const int32_t id = ids.tensor().as<int32_t>()[i];
            if (id < 0) fail(Exit::numerics, "a logit of the teacher is not a finite number");
            lists.add(id, log_probs.tensor().as<float>()[i]);
        }
        lists.end_list();
    }
    return lists;
}

std::vector<double> Learner::measured(const Batch& batch) const {
    const bool policy = objective().answers() == Answers::policy;
    std::vector<double> found = read(policy ? workspace_.head.nll : workspace_.head.answers), ordered;
    if (policy) {
        for (const int32_t target : batch.term_targets) ordered.push_back(-found[static_cast<size_t>(target)]);
        return ordered;
    }
    const std::vector<int32_t>& places = workspace_.batch.score_order;
    if (places.empty()) return found;
    for (const int32_t place : places) ordered.push_back(found[static_cast<size_t>(place)]);
    return ordered;
}

void Learner::prepare(const Context& ctx, const Batch& batch, double total, Pass pass) {
    objective().check(batch);
    arena_.release(state_end_);
    workspace_ = Workspace::lay_out(arena_, config_, options_, BatchShape::of(batch), pass, lowest_layer_);
    host_.release(host_state_end_);
    workspace_.acts.offloaded = OffloadedInputs::lay_out(host_, config_, workspace_.acts.layout, &transfers_);
    workspace_.batch.fill(ctx, config_, batch, total);
    state_.blocks.begin(false);
    workspace_.batch.input.before_forward = [this, ctx](int64_t layer) {
        sync_.await_weights(layer);
        state_.blocks.before_forward(ctx, layer);
    };
}

void Learner::compute_reference(const Context& ctx, const Batch& batch) {
    const Answers answers = objective().answers();
    if (!objective().needs_reference() || has_reference(batch, answers)) return;
    require(options_.reference == Reference::base, "the batch has no reference, and nothing computes one");
    TransformerInput& input = workspace_.batch.input;
    input.adapters = false;
    model_->forward(ctx, input, workspace_.acts);
    input.adapters = true;
    objective().measure(ctx, objective_step());
    if (answers != Answers::policy) return copy(ctx, workspace_.batch.reference, workspace_.head.answers);
    // A policy's reference is of terms. The host waits for it here.
    const std::vector<double> of_terms = measured(batch);
    put(ctx, workspace_.batch.reference, std::vector<float>(of_terms.begin(), of_terms.end()));
}

ObjectiveStep Learner::objective_step() {
    return {.model = *model_,
            .acts = workspace_.acts,
            .buffers = workspace_.head,
            .batch = workspace_.batch,
            .mismatched = state_.mismatched,
            .mismatched_count = mismatched_count_};
}

// A mask is a function of the update, the micro-step and the rank, so that a resumed run draws the same ones. The rank
// is in bits of the seed above those that a config is likely to use: the stream has no bits left for it.
DropoutMask Learner::dropout() const {
    if (!options_.lora || options_.lora->dropout == 0) return {};
    constexpr uint64_t streams = uint64_t{1} << 63;  // apart from the streams of initialisation
    return {.p = options_.lora->dropout,
            .seed = options_.seed ^ (static_cast<uint64_t>(sync_.options().rank) << 40),
            .stream = streams | static_cast<uint64_t>(updates_) << 34 | static_cast<uint64_t>(micro_steps_ - 1) << 14};
}

LossSums Learner::loss() const {
    return LossSums::of(read(state_.loss_sums()));
}

void Learner::clear_sums(const Tensor& sums) const {
    const LossSums::Numbers nothing = LossSums().numbers();
    put(context(), sums, nothing.data());
}

std::vector<double> Learner::read(const Tensor& numbers) const {
    std::vector<double> values(static_cast<size_t>(numbers.numel()));
    if (options_.gpu)
        options_.gpu->download(values.data(), numbers);
    else
        std::memcpy(values.data(), numbers.data, numbers.bytes());
    return values;
}

// --- The update ---

void Learner::update(const Context& ctx, const AdamWSettings& settings, double learning_rate, double max_norm,
                     const UpdateLimits& limits) {
    // A rank without a micro-step still takes part in the sums, with zeros.
    if (micro_steps_ == 0) clear_gradients();
    sync_.finish(ctx, sync_memory_);
    add_norm(ctx);
    clip_factor(ctx, {.out = state_.norm_and_clip(),
                      .max_norm = max_norm,
                      .limits = limits,
                      .loss = state_.step_sums.slice(0, 0, 2),
                      .held = state_.held()});
    ++updates_;
    update_weights(ctx, settings, learning_rate);
    keep_result();
}

void Learner::clear_gradients() {
    await_gradients();
    for (const PlacedArray::Part& part : state_.gradients.parts())
        clear(part.hosted ? Context() : context(), part.values);
}

void Learner::await_gradients() {
    transfers_.await(state_.blocks.gradients_sent());
    if (options_.gpu && !hosted_blocks_.empty()) options_.gpu->synchronize();
}

// Backward has finished a block in host memory: its gradients leave.
void Learner::leave_block(const Context& ctx, int64_t layer) {
    if (const Range block = state_.blocks.gradients_of(layer); block.size() > 0) {
        const auto place = std::ranges::lower_bound(sync_.owned(), block.begin, {}, &Range::begin);
        sum_squares(ctx, {.sums = square_sums_[static_cast<size_t>(place - sync_.owned().begin())],
                          .gradients = state_.blocks.gradients_in_slot(block.begin, block.end)});
    }
    state_.blocks.after_backward(layer);
}

// Those of blocks in host memory were summed when they left.
void Learner::add_squares(const Context& ctx) {
    clear(ctx, state_.norm_and_clip());
    for (size_t i = 0; i < square_sums_.size(); ++i) {
        const Range& owned = sync_.owned()[i];
        if (owned.size() > 0 && state_.gradients.part_of(owned.begin).hosted) continue;
        sum_squares(ctx, {.sums = square_sums_[i], .gradients = state_.gradients.slice(owned.begin, owned.end)});
    }
    add_up(ctx, {.total = state_.norm_and_clip().slice(0, 0, 1), .sums = state_.square_sums});
}

// Squares of this rank's gradients, then the sums of all ranks.
void Learner::add_norm(const Context& ctx) {
    add_squares(ctx);
    const auto sums = [&](int64_t begin, int64_t end) { return state_.step_sums.slice(0, begin, end); };
    sync_.combine(ctx, {{.values = sums(0, LossSums::sums)},
                        {.values = sums(LossSums::sums, LossSums::count), .op = Communicator::Op::max},
                        {.values = sums(LossSums::count, LossSums::count + 1)}});
}

void Learner::keep_result() {
    Pending& step = pending_.emplace_back();
    step.update = updates_;
    if (!options_.gpu) {
        step.step_sums = read(state_.step_sums);
        return;
    }
    if (idle_readbacks_.empty())
        idle_readbacks_.push_back(std::make_unique<Readback>(*options_.gpu, state_.step_sums.bytes()));
    step.readback = std::move(idle_readbacks_.back());
    idle_readbacks_.pop_back();
    step.readback->enqueue(state_.step_sums);
}

StepResult Learner::result() {
    require(!pending_.empty(), "no update has a result to collect");
    Pending step = std::move(pending_.front());
    pending_.pop_front();
    if (step.readback) {
        const auto* numbers = static_cast<const double*>(step.readback->get());
        step.step_sums.assign(numbers, numbers + state_.step_sums.numel());
        idle_readbacks_.push_back(std::move(step.readback));
    }
    const std::vector<double>& sums = step.step_sums;
    const StepResult result{.loss = LossSums::of(sums),
                            .gradient_norm = sums[LossSums::count],
                            .clip_factor = sums[LossSums::count + 1],
                            .applied = !std::isnan(sums[LossSums::count + 1])};
    if (sums[LossSums::count + 2] != 0) take_back(step.update);
    const bool bad_loss = !std::isfinite(result.loss.nll);
    if (bad_loss || !std::isfinite(result.gradient_norm))
        fail(Exit::numerics, "the {} of step {} is not finite; the weights are those of step {}",
             bad_loss ? "loss" : "gradient norm", step.update, step.update - 1);
    return result;
}

void Learner::take_back(int64_t update) {
    for (; !pending_.empty(); pending_.pop_front()) {
        Pending& later = pending_.front();
        if (!later.readback) continue;
        later.readback->get();
        idle_readbacks_.push_back(std::move(later.readback));
    }
    clear(context(), state_.held());
    updates_ = update - 1;
}

}  // namespace colonnade
