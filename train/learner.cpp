#include "train/learner.h"

#include <cmath>
#include <cstring>

namespace colonnade {
namespace {

struct State {
    Tensor weights, gradients, m, v;
    static State lay_out(Arena& arena, const ParameterList& parameters, const LearnerOptions& o) {
        State s;
        const int64_t n = parameters.size();
        s.weights = arena.tensor("weights", o.dtype, {n});
        if (o.training) {
            s.gradients = arena.tensor("gradients", o.dtype, {n});
            s.m = arena.tensor("optimizer", o.dtype, {n});
            s.v = arena.tensor("optimizer", o.dtype, {n});
        }
        return s;
    }
};

}  // namespace

Arena Learner::plan(const ModelConfig& config, const LearnerOptions& o) {
    Arena arena(Device::cpu);
    State::lay_out(arena, ParameterList(config), o);
    Activations::lay_out(arena, config, o.max_packs, o.max_length, o.dtype, o.training);
    ObjectiveBuffers::lay_out(arena, config, o.max_packs * o.max_length, o.head_chunk, o.dtype, o.training);
    return arena;
}

Learner::Learner(const ModelConfig& config, const LearnerOptions& options)
    : config_(config), options_(options), parameters_(config), arena_(Device::cpu, plan(config, options).bytes()) {
    const State state = State::lay_out(arena_, parameters_, options_);
    weights_ = state.weights;
    gradients_ = state.gradients;
    m_ = state.m;
    v_ = state.v;
    state_end_ = arena_.mark();
    model_ = std::make_unique<Transformer>(config_, view_parameters(config_, parameters_, weights_));
    if (options_.training) gradient_views_ = view_parameters(config_, parameters_, gradients_);
}

Learner::Workspace Learner::workspace(int64_t packs, int64_t length, int64_t targets, bool training) {
    arena_.release(state_end_);
    Workspace w;
    w.acts = Activations::lay_out(arena_, config_, packs, length, options_.dtype, training);
    w.head = ObjectiveBuffers::lay_out(arena_, config_, targets,
                                       std::min(options_.head_chunk, std::max<int64_t>(targets, 1)), options_.dtype,
                                       training);
    return w;
}

void Learner::zero_gradients() {
    std::memset(gradients_.data, 0, gradients_.bytes());
}

LossSums Learner::accumulate(const Context& ctx, const Batch& batch, double total_weight) {
    if (batch.rows.empty()) return {};  // an empty pack that fills the last step
    const AttentionMasks masks(config_, batch.mask);
    const TransformerInput input{batch.packs, batch.length, batch.tokens, batch.positions, masks};
    Workspace w = workspace(batch.packs, batch.length, static_cast<int64_t>(batch.rows.size()), true);
    model_->forward(ctx, input, w.acts);
    const LossSums sums = language_model_loss(ctx, *model_, w.acts, w.head, batch, total_weight, &gradient_views_);
    model_->backward(ctx, input, w.acts, gradient_views_);
    return sums;
}

LossSums Learner::evaluate(const Context& ctx, const Batch& batch, std::vector<double>* nll) {
    if (batch.rows.empty()) return {};
    const AttentionMasks masks(config_, batch.mask);
    const TransformerInput input{batch.packs, batch.length, batch.tokens, batch.positions, masks};
    Workspace w = workspace(batch.packs, batch.length, static_cast<int64_t>(batch.rows.size()), false);
    model_->forward(ctx, input, w.acts);
    return language_model_loss(ctx, *model_, w.acts, w.head, batch, batch.target_weight, nullptr, nll);
}

static std::string first_bad_gradient(const ParameterList& parameters, const Tensor& gradients) {
    std::string bad;
    dispatch_float(gradients.dtype, [&]<typename T>() {
        for (const Parameter& p : parameters.all())
            for (int64_t i = 0; bad.empty() && i < p.size(); ++i)
                if (!std::isfinite(gradients.as<T>()[p.begin + i])) bad = p.name;
    });
    return bad.empty() ? "their sum of squares overflows" : "first in " + bad;
}

Learner::Update Learner::update(const Context& ctx, const AdamWSettings& settings, double learning_rate,
                                double max_norm) {
    const double norm = gradient_norm(ctx, gradients_);
    if (!std::isfinite(norm))
        fail(Exit::numerics, "the gradients of update {} are not finite ({}); the weights are those of update {}",
             updates_ + 1, first_bad_gradient(parameters_, gradients_), updates_);
    // As torch.nn.utils.clip_grad_norm_ has it.
    const double clip = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
    adamw(ctx, {.weights = weights_,
                .m = m_,
                .v = v_,
                .gradients = gradients_,
                .parameters = parameters_,
                .settings = settings,
                .learning_rate = learning_rate,
                .gradient_scale = clip,
                .step = ++updates_});
    return {norm, clip};
}

}  // namespace colonnade
