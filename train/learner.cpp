#include "train/learner.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/checksum.h"

namespace colonnade {
namespace {

/// Parts of State::outcome.
constexpr int64_t loss_sums = 3, clip = 2;

}  // namespace

Learner::State Learner::State::lay_out(Arena& arena, const ParameterList& parameters, const LearnerOptions& o,
                                       const GradientSync& sync) {
    State s;
    const int64_t n = parameters.size(), kept = sync.state_size();
    const bool on_gpu = arena.device() == Device::cuda;
    const DType master = sum_dtype(o.compute_dtype());
    s.weights = arena.tensor(on_gpu ? "master weights" : "weights", master, {on_gpu ? kept : n});
    if (on_gpu) s.copy = arena.tensor("weights", o.compute_dtype(), {n});
    s.outcome = arena.tensor("workspace", DType::f64, {loss_sums + clip});
    s.eval_sums = arena.tensor("workspace", DType::f64, {loss_sums});
    if (!o.training) return s;
    const DType moments = on_gpu ? o.moments : master;
    s.gradients = arena.tensor("gradients", master, {n});
    s.m = arena.tensor("optimizer", moments, {kept});
    s.v = arena.tensor("optimizer", moments, {kept});
    if (const size_t bytes = sync.scratch_bytes(arena.device(), master))
        s.exchange = arena.tensor("gradient sync", DType::u8, {static_cast<int64_t>(bytes)});
    if (on_gpu) {
        s.decay_map = arena.tensor("workspace", DType::i32, {decay_map_words(n)});
        s.norm_scratch = arena.tensor("workspace", DType::u8, {gradient_norm_scratch_bytes(n)});
        s.checksum = arena.tensor("workspace", DType::i64, {1});
    }
    return s;
}

Learner::Workspace Learner::Workspace::lay_out(Arena& arena, const ModelConfig& config, const LearnerOptions& o,
                                               int64_t packs, int64_t length, int64_t targets, bool training) {
    Workspace w;
    w.batch = BatchTensors::lay_out(arena, packs * length, targets);
    w.masks = AttentionMasks::Memory::lay_out(arena, config, packs, length);
    w.acts = Activations::lay_out(arena, config, packs, length, o.compute_dtype(), training, o.recompute);
    w.head = ObjectiveBuffers::lay_out(arena, config, targets, std::min(o.head_chunk, std::max<int64_t>(targets, 1)),
                                       o.compute_dtype(), training);
    return w;
}

Arena Learner::plan(const ModelConfig& config, const LearnerOptions& options, Device device) {
    Arena arena(device);
    const ParameterList parameters(config);
    State::lay_out(arena, parameters, options, GradientSync(parameters, options.sync));
    Workspace::lay_out(arena, config, options, options.max_packs, options.max_length,
                       options.max_packs * options.max_length, options.training);
    return arena;
}

Learner::Learner(const ModelConfig& config, const LearnerOptions& options)
    : config_(config),
      options_(options),
      parameters_(config),
      sync_(parameters_, options.sync),
      arena_(options.device(), plan(config, options, options.device()).bytes()),
      state_(State::lay_out(arena_, parameters_, options_, sync_)),
      state_end_(arena_.mark()) {
    model_ = std::make_unique<Transformer>(config_, view_parameters(config_, parameters_, used_weights()));
    if (options_.training) gradient_views_ = view_parameters(config_, parameters_, state_.gradients);
    if (!state_.decay_map.empty()) options_.gpu->upload(state_.decay_map, decay_map(parameters_).data());
}

Context Learner::context(Profile* profile, bool deterministic) const {
    return {.device = options_.device(), .profile = profile, .gpu = options_.gpu, .deterministic = deterministic};
}

void Learner::fill_weights(const std::function<void(const Tensor&)>& fill) {
    if (state_.weights.numel() != parameters_.size()) {  // on a GPU, sharded: masters are a part of the whole
        const HostCopy whole = HostCopy::blank(state_.weights.dtype, parameters_.size());
        fill(whole.tensor());
        const float* from = whole.tensor().as<float>();
        options_.gpu->upload(state_.copy, [&](void* out, int64_t first, int64_t count) {
            std::transform(from + first, from + first + count, static_cast<uint16_t*>(out), bf16_from_float);
        });
        int64_t at = 0;
        for (const Slice& s : sync_.state()) {
            if (s.size() > 0) options_.gpu->upload(state_.weights.slice(0, at, at + s.size()), from + s.begin);
            at += s.size();
        }
        return;
    }
    const HostCopy host = HostCopy::to_fill(options_.gpu, state_.weights);
    fill(host.tensor());
    host.store();
    if (!state_.copy.empty()) cast(context(), state_.copy, state_.weights);
}

void Learner::zero_gradients() {
    for (const Tensor& t : {state_.gradients, state_.outcome}) {
        if (options_.gpu)
            options_.gpu->zero(t);
        else
            std::memset(t.data, 0, t.bytes());
    }
}

std::vector<double> Learner::read(const Tensor& numbers) const {
    std::vector<double> values(static_cast<size_t>(numbers.numel()));
    if (options_.gpu)
        options_.gpu->download(values.data(), numbers);
    else
        std::memcpy(values.data(), numbers.data, numbers.bytes());
    return values;
}

void Learner::run(const Context& ctx, const Batch& batch, double total_weight, const Tensor& sums,
                  const ModelParameters* gradients, std::vector<double>* nll, bool last) {
    const bool training = gradients != nullptr;
    arena_.release(state_end_);
    Workspace w =
        Workspace::lay_out(arena_, config_, options_, batch.packs, batch.length, std::ssize(batch.rows), training);
    w.batch.fill(ctx, batch, total_weight, config_.vocab_size);
    const AttentionMasks masks(ctx, config_, batch.mask, w.masks);
    const LayerHooks hooks{.before_forward = [&](int64_t layer) { sync_.await_weights(layer); },
                           .after_backward =
                               [&](int64_t layer) {
                                   if (last) sync_.start(ctx, state_.gradients, state_.exchange, layer);
                               }};
    const TransformerInput input{.packs = batch.packs,
                                 .length = batch.length,
                                 .tokens = w.batch.tokens,
                                 .positions = w.batch.positions,
                                 .token_index = w.batch.token_index,
                                 .masks = masks,
                                 .hooks = hooks};
    model_->forward(ctx, input, w.acts);
    language_model_loss(ctx, *model_, w.acts, w.head, w.batch, sums, gradients);
    if (training) model_->backward(ctx, input, w.acts, *gradients);
    if (nll) *nll = read(w.head.nll);
}

void Learner::accumulate(const Context& ctx, const Batch& batch, double total_weight, bool last) {
    if (batch.rows.empty()) return;  // an empty pack that fills the last step
    run(ctx, batch, total_weight, state_.outcome.slice(0, 0, loss_sums), &gradient_views_, nullptr, last);
}

LossSums Learner::loss() const {
    const std::vector<double> sums = read(state_.outcome.slice(0, 0, loss_sums));
    return {sums[0], sums[1], sums[2]};
}

LossSums Learner::evaluate(const Context& ctx, const Batch& batch, std::vector<double>* nll) {
    if (batch.rows.empty()) return {};
    if (options_.gpu)
        options_.gpu->zero(state_.eval_sums);
    else
        std::memset(state_.eval_sums.data, 0, state_.eval_sums.bytes());
    run(ctx, batch, batch.target_weight, state_.eval_sums, nullptr, nll);
    const std::vector<double> sums = read(state_.eval_sums);
    return {sums[0], sums[1], sums[2]};
}

Tensor Learner::norm_and_clip() const {
    return state_.outcome.slice(0, loss_sums, loss_sums + clip);
}

void Learner::update_weights(const Context& ctx, const AdamWSettings& settings, double learning_rate) {
    sync_.await_weights();  // no weight may change that is still on its way
    const std::vector<Slice>& slices = sync_.state();
    // Forward begins with what lies last.
    int64_t at = sync_.state_size();
    for (size_t i = slices.size(); i-- > 0;) {
        const Slice& s = slices[i];
        at -= s.size();
        const auto kept = [&](const Tensor& t) { return t.slice(0, at, at + s.size()); };
        const auto of_all = [&](const Tensor& t) { return t.slice(0, s.begin, s.end); };
        const bool whole = state_.weights.numel() == parameters_.size();
        if (s.size() > 0)
            adamw(ctx, {.weights = whole ? of_all(state_.weights) : kept(state_.weights),
                        .copy = state_.copy.empty() ? Tensor() : of_all(state_.copy),
                        .m = kept(state_.m),
                        .v = kept(state_.v),
                        .gradients = of_all(state_.gradients),
                        .clip = norm_and_clip(),
                        .decay_map = state_.decay_map,
                        .parameters = parameters_,
                        .begin = s.begin,
                        .settings = settings,
                        .learning_rate = learning_rate,
                        .step = updates_,
                        .seed = options_.seed});
        if (sync_.sharded()) sync_.share(used_weights(), state_.exchange, i);
    }
}

void Learner::update(const Context& ctx, const AdamWSettings& settings, double learning_rate, double max_norm) {
    sync_.finish(ctx, state_.gradients, state_.exchange);
    const Tensor squares = state_.outcome.slice(0, loss_sums, loss_sums + 1);
    for (const Slice& s : sync_.owned())
        add_squares(
            ctx,
            {.sum = squares, .gradients = state_.gradients.slice(0, s.begin, s.end), .scratch = state_.norm_scratch});
    sync_.sum_numbers(ctx, state_.outcome.slice(0, 0, loss_sums + 1));
    clip_factor(ctx, {.out = norm_and_clip(), .max_norm = max_norm});
    ++updates_;
    update_weights(ctx, settings, learning_rate);
    Pending& step = pending_.emplace_back();
    step.update = updates_;
    if (!options_.gpu) {
        step.outcome = read(state_.outcome);
        return;
    }
    if (idle_readbacks_.empty())
        idle_readbacks_.push_back(std::make_unique<Readback>(*options_.gpu, state_.outcome.bytes()));
    step.readback = std::move(idle_readbacks_.back());
    idle_readbacks_.pop_back();
    step.readback->enqueue(state_.outcome);
}

std::string Learner::first_bad_gradient() const {
    // On a GPU a later step may be under way: its gradients then stand for those of this one.
    const HostCopy gradients = HostCopy::of(options_.gpu, state_.gradients);
    std::string bad;
    dispatch_float(gradients.tensor().dtype, [&]<typename T>() {
        const T* g = gradients.tensor().as<T>();
        for (const Parameter& p : parameters_.all())
            for (const Slice& s : sync_.owned())
                for (int64_t i = std::max(p.begin, s.begin); bad.empty() && i < std::min(p.begin + p.size(), s.end);
                     ++i)
                    if (!std::isfinite(g[i])) bad = p.name;
    });
    if (const Communicator* c = sync_.options().communicator)
        for (const std::string& found : c->ranks().gather("bad gradient", bad))
            if (bad.empty()) bad = found;
    return bad.empty() ? "their sum of squares overflows" : "first in " + bad;
}

HostCopy Learner::whole(const Tensor& state) const {
    HostCopy own = HostCopy::of(options_.gpu, state);
    if (state.numel() == parameters_.size()) return own;
    const bool first = sync_.options().rank == 0;
    HostCopy all = HostCopy::blank(own.tensor().dtype, first ? parameters_.size() : 0);
    sync_.collect(all.tensor(), own.tensor());
    return all;
}

uint64_t Learner::weights_checksum() {
    sync_.await_weights();
    return checksum(context(), used_weights(), state_.checksum);
}

StepResult Learner::result() {
    require(!pending_.empty(), "no update whose result nobody has asked for");
    Pending step = std::move(pending_.front());
    pending_.pop_front();
    if (step.readback) {
        const auto* numbers = static_cast<const double*>(step.readback->get());
        step.outcome.assign(numbers, numbers + state_.outcome.numel());
        idle_readbacks_.push_back(std::move(step.readback));
    }
    const std::vector<double>& o = step.outcome;
    const StepResult result{.loss = {o[0], o[1], o[2]}, .gradient_norm = o[3], .clip_factor = o[4]};
    if (!std::isfinite(result.loss.nll)) {
        updates_ = step.update - 1;
        fail(Exit::numerics, "the loss of step {} is not finite; nothing of that step is saved", step.update);
    }
    if (!std::isfinite(result.gradient_norm)) {
        const std::string bad = first_bad_gradient();
        updates_ = step.update - 1;
        fail(Exit::numerics, "the gradients of update {} are not finite ({}); the weights are those of update {}",
             step.update, bad, step.update - 1);
    }
    return result;
}

}  // namespace colonnade
