#include "train/step/learner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/device/checksum.h"
#include "engine/device/device_memory.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

/// Parts of State::outcome.
constexpr int64_t loss_sums = LossSums::count, clip = 2;

ParameterList trained(const ModelConfig& config, const LearnerOptions& o) {
    return o.lora ? lora_parameters(config, *o.lora) : ParameterList(config);
}
ParameterList frozen(const ModelConfig& config, const LearnerOptions& o) {
    return o.lora ? ParameterList(config) : ParameterList();
}

/// SHA-256 of the hashes of pieces, which threads share out.
std::string hash_as_bf16(const Tensor& values) {
    constexpr int64_t piece = 1 << 20;
    const int64_t n = values.numel(), pieces = (n + piece - 1) / piece;
    std::vector<std::string> hashes(static_cast<size_t>(pieces));
    dispatch_float(values.dtype, [&]<typename T>() {
        const T* const data = values.as<T>();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < pieces; ++i) {
            std::string bytes;
            for (int64_t j = i * piece; j < std::min(n, (i + 1) * piece); ++j) {
                const uint16_t bits = bf16_from_float(static_cast<float>(data[j]));
                bytes += {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
            }
            hashes[static_cast<size_t>(i)] = sha256(bytes);
        }
    });
    std::string all;
    for (const std::string& hash : hashes) all += hash;
    return sha256(all);
}

}  // namespace

Learner::State Learner::State::lay_out(Arena& arena, const ParameterList& parameters, const ParameterList& base,
                                       const LearnerOptions& o, const GradientSync& sync) {
    State s;
    const int64_t n = parameters.size(), kept = sync.state_size();
    const bool on_gpu = arena.device() == Device::cuda;
    const DType master = sum_dtype(o.dtype_on(arena.device()));
    const std::string group = o.lora ? "adapters" : "weights";
    if (o.lora) s.base = arena.tensor("frozen weights", o.dtype_on(arena.device()), {base.size()});
    s.weights = arena.tensor(on_gpu ? "master " + group : group, master, {on_gpu ? kept : n});
    if (on_gpu) s.copy = arena.tensor(group, o.dtype_on(arena.device()), {n});
    s.outcome = arena.tensor("workspace", DType::f64, {loss_sums + clip});
    s.eval_sums = arena.tensor("workspace", DType::f64, {loss_sums});
    if (!o.training) return s;
    const DType moments = on_gpu ? o.moments : master;
    s.gradients = arena.tensor("gradients", master, {n});
    s.m = arena.tensor("optimizer", moments, {kept});
    s.v = arena.tensor("optimizer", moments, {kept});
    if (const size_t bytes = sync.scratch_bytes(arena.device(), master))
        s.exchange = arena.tensor("gradient sync", DType::u8, {static_cast<int64_t>(bytes)});
    if (const int64_t hidden = sync.embedding_width())
        s.rows = EmbeddingRows::lay_out(arena, o.max_packs * o.max_length, hidden, o.dtype_on(arena.device()));
    if (on_gpu) {
        s.decay_map = arena.tensor("workspace", DType::i32, {decay_map_words(n)});
        s.norm_scratch = arena.tensor("workspace", DType::u8, {gradient_norm_scratch_bytes(n)});
        s.checksum = arena.tensor("workspace", DType::i64, {1});
    }
    return s;
}

Learner::Workspace Learner::Workspace::lay_out(Arena& arena, const ModelConfig& config, const LearnerOptions& o,
                                               const BatchShape& shape, bool training) {
    Workspace w;
    const DType dtype = o.dtype_on(arena.device());
    w.batch = BatchTensors::lay_out(arena, shape.tokens(), shape.targets);
    w.masks = AttentionMasks::Memory::lay_out(arena, config, shape.packs, shape.length);
    w.acts = Activations::lay_out(arena, config, shape.packs, shape.length, dtype, training, o.recompute,
                                  o.lora ? &*o.lora : nullptr);
    w.head = o.objective->lay_out(arena, config, shape, {o.head_chunk, dtype, training});
    return w;
}

Arena Learner::plan(const ModelConfig& config, const LearnerOptions& options, Device device) {
    Arena arena(device);
    const ParameterList parameters = trained(config, options);
    State::lay_out(arena, parameters, frozen(config, options), options, GradientSync(parameters, options.sync));
    Workspace::lay_out(arena, config, options, BatchShape::largest(options.max_packs, options.max_length),
                       options.training);
    return arena;
}

Learner::Learner(const ModelConfig& config, const LearnerOptions& options)
    : config_(config),
      options_(options),
      base_parameters_(frozen(config, options)),
      parameters_(trained(config, options)),
      sync_(parameters_, options.sync),
      arena_(options.device(), plan(config, options, options.device()).bytes()),
      state_(State::lay_out(arena_, parameters_, base_parameters_, options_, sync_)),
      state_end_(arena_.mark()) {
    ModelParameters views = options_.lora ? view_parameters(config_, base_parameters_, state_.base)
                                          : view_parameters(config_, parameters_, used_weights());
    if (options_.lora) view_lora(config_, *options_.lora, parameters_, used_weights(), views);
    model_ = std::make_unique<Transformer>(config_, views);
    if (options_.training) {
        if (options_.lora)
            view_lora(config_, *options_.lora, parameters_, state_.gradients, gradient_views_);
        else
            gradient_views_ = {view_parameters(config_, parameters_, state_.gradients)};
        sync_memory_ = {.gradients = state_.gradients,
                        .embedding = gradient_views_.embedding,
                        .scratch = state_.exchange,
                        .rows = state_.rows};
        clear(context(), state_.gradients);  // the gaps between parameters stay zero
    }
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
        upload_as_bf16(*options_.gpu, state_.copy, from);
        int64_t at = 0;
        for (const Range& s : sync_.state()) {
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

void Learner::clear_sums(const Tensor& sums) const {
    const LossSums::Numbers nothing = LossSums().numbers();
    put(context(), sums, nothing.data());
}

void Learner::fill_base(const std::function<void(const Parameter&, const Tensor&)>& fill) {
    std::string hashes;
    for (const Parameter& p : base_parameters_.all()) {
        const HostCopy host = HostCopy::to_fill(options_.gpu, state_.base.slice(0, p.begin, p.begin + p.size()));
        fill(p, host.tensor());
        hashes += hash_as_bf16(host.tensor());
        host.store();
    }
    base_hash_ = sha256(hashes);
}

// A mask is a function of the update, the micro-step and the rank, so that a resumed run draws the same ones. The rank
// stands above any seed a config is likely to have; the stream has no room for it.
DropoutMask Learner::next_dropout() {
    if (!options_.lora || options_.lora->dropout == 0) return {};
    constexpr uint64_t streams = uint64_t{1} << 63;  // apart from those of initialisation
    return {.p = options_.lora->dropout,
            .seed = options_.seed ^ (static_cast<uint64_t>(sync_.options().rank) << 40),
            .stream = streams | static_cast<uint64_t>(updates_) << 34 | static_cast<uint64_t>(micro_steps_++) << 14};
}

void Learner::zero_gradients() {
    micro_steps_ = 0;
    clear(context(), norm_and_clip());
    clear_sums(state_.outcome.slice(0, 0, loss_sums));
    if (options_.lora) return clear(context(), state_.gradients);  // adapters always add up
    // Matrices are overwritten by the first micro-step, a tied embedding with the language model's head.
    const bool embedding_is_head = config_.tie_word_embeddings && !config_.score_head;
    for (const Parameter& p : parameters_.all())
        if (p.shape.size() < 2 || p.name == "score.weight" ||
            (p.name == "model.embed_tokens.weight" && !embedding_is_head))
            clear(context(), state_.gradients.slice(0, p.begin, p.begin + p.size()));
    gradient_views_.matrices = Grad::overwrite;
}

std::vector<double> Learner::read(const Tensor& numbers) const {
    std::vector<double> values(static_cast<size_t>(numbers.numel()));
    if (options_.gpu)
        options_.gpu->download(values.data(), numbers);
    else
        std::memcpy(values.data(), numbers.data, numbers.bytes());
    return values;
}

template <typename Body>
void Learner::with_batch(const Context& ctx, const Batch& batch, double total, bool training, bool last, Body&& body) {
    arena_.release(state_end_);
    Workspace w = Workspace::lay_out(arena_, config_, options_, BatchShape::of(batch), training);
    w.batch.fill(ctx, batch, total, config_.vocab_size);
    objective().fill(ctx, w.head, batch);
    const AttentionMasks masks(ctx, config_, batch.mask, w.masks, batch.positions);
    const LayerHooks hooks{.before_forward = [&](int64_t layer) { sync_.await_weights(layer); },
                           .after_backward =
                               [&](int64_t layer) {
                                   if (last) sync_.start(ctx, sync_memory_, layer);
                               }};
    body(w, TransformerInput{.packs = batch.packs,
                             .length = batch.length,
                             .tokens = w.batch.tokens,
                             .positions = w.batch.positions,
                             .token_index = w.batch.token_index,
                             .masks = masks,
                             .dropout = training ? next_dropout() : DropoutMask(),
                             .hooks = hooks});
}

template <typename Then>
void Learner::run(const Context& ctx, const Batch& batch, double total, const Tensor& sums,
                  const ModelGradients* gradients, bool last, Then&& then) {
    with_batch(ctx, batch, total, gradients != nullptr, last, [&](Workspace& w, const TransformerInput& input) {
        const ObjectiveStep step{.model = *model_,
                                 .acts = w.acts,
                                 .buffers = w.head,
                                 .batch = w.batch,
                                 .sums = sums,
                                 .total = total,
                                 .gradients = gradients};
        if (objective().needs_reference() && batch.reference.empty()) {
            require(static_cast<bool>(options_.reference), "the batch has no reference, and nothing computes one");
            options_.reference(ctx, *model_, input, w.acts);
            objective().measure(ctx, step);
            objective().take_reference(ctx, w.head);
        }
        model_->forward(ctx, input, w.acts);
        objective().run(ctx, step);
        if (gradients) backward(ctx, input, w.acts, *gradients, last);
        then(w);
    });
}

void Learner::backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                       const ModelGradients& gradients, bool last) {
    if (!last || !sync_.embedding_by_rows()) return model_->backward(ctx, input, acts, gradients);
    ModelGradients others = gradients;
    others.embedding = {};
    model_->backward(ctx, input, acts, others);
    sync_.add_embedding(ctx, sync_memory_, acts.dstream, input.token_index);
}

void Learner::accumulate(const Context& ctx, const Batch& batch, double total, bool last) {
    if (objective().total(batch) == 0) return;  // an empty pack that fills the last step; update() sees to the sums
    run(ctx, batch, total, state_.outcome.slice(0, 0, loss_sums), &gradient_views_, last, [](const Workspace&) {});
    gradient_views_.matrices = Grad::accumulate;
}

LossSums Learner::loss() const {
    return LossSums::of(read(state_.outcome.slice(0, 0, loss_sums)));
}

LossSums Learner::evaluate(const Context& ctx, const Batch& batch, std::vector<double>* nll) {
    if (objective().total(batch) == 0) return {};
    clear_sums(state_.eval_sums);
    run(ctx, batch, objective().total(batch), state_.eval_sums, nullptr, false, [&](const Workspace& w) {
        if (nll) *nll = read(w.head.nll);
    });
    return LossSums::of(read(state_.eval_sums));
}

std::vector<double> Learner::measure(const Context& ctx, const Batch& batch) {
    std::vector<double> answers;
    if (batch.branch_table.empty()) return answers;
    with_batch(ctx, batch, 1, false, false, [&](Workspace& w, const TransformerInput& input) {
        model_->forward(ctx, input, w.acts);
        objective().measure(ctx, {.model = *model_, .acts = w.acts, .buffers = w.head, .batch = w.batch});
        answers = read(w.head.answers);
    });
    return answers;
}

Tensor Learner::norm_and_clip() const {
    return state_.outcome.slice(0, loss_sums, loss_sums + clip);
}

void Learner::update_weights(const Context& ctx, const AdamWSettings& settings, double learning_rate) {
    sync_.await_weights();  // no weight may change that is still on its way
    const std::vector<Range>& slices = sync_.state();
    // Forward begins with what lies last.
    int64_t at = sync_.state_size();
    for (size_t i = slices.size(); i-- > 0;) {
        const Range& s = slices[i];
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
    // A rank that had nothing to learn from still takes part in the sums, with zeros.
    if (std::exchange(gradient_views_.matrices, Grad::accumulate) == Grad::overwrite)
        clear(context(), state_.gradients);
    sync_.finish(ctx, sync_memory_);
    const auto outcome = [&](int64_t begin, int64_t end) { return state_.outcome.slice(0, begin, end); };
    const Tensor squares = outcome(loss_sums, loss_sums + 1);
    for (const Range& s : sync_.owned())
        add_squares(
            ctx,
            {.sum = squares, .gradients = state_.gradients.slice(0, s.begin, s.end), .scratch = state_.norm_scratch});
    sync_.combine(
        ctx,
        {{outcome(0, LossSums::sums)}, {outcome(LossSums::sums, LossSums::count), Communicator::Op::max}, {squares}});
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
            for (const Range& s : sync_.owned())
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
    const StepResult result{.loss = LossSums::of(o), .gradient_norm = o[loss_sums], .clip_factor = o[loss_sums + 1]};
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
