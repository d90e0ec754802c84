#include "train/objectives/language_model_objective.h"

#include <cmath>

namespace colonnade {

ObjectiveBuffers lay_out_head(Arena& arena, const ModelConfig& config, int64_t targets, const HeadSettings& s) {
    ObjectiveBuffers b;
    b.logits = arena.tensor("head", s.dtype, {std::min(s.chunk, std::max<int64_t>(targets, 1)), config.vocab_size});
    b.nll = arena.tensor("head", DType::f64, {targets});
    return b;
}

HeadLoss head_over_targets(const ObjectiveStep& s) {
    const ObjectiveBuffers& b = s.buffers;
    HeadLoss head{.nll = b.nll,
                  .correct = b.correct,
                  .logits = b.logits,
                  .hidden = s.acts.hidden,
                  .weight = s.model.weights().head,
                  .targets = s.batch.targets,
                  .scales = s.batch.scales};
    if (!s.gradients) return head;
    head.dhidden = s.acts.dhidden;
    head.dweight = s.gradients->views.head;
    head.dweight_mode = s.gradients->matrices;
    return head;
}

ObjectiveBuffers LanguageModelObjective::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                                 const HeadSettings& settings) const {
    ObjectiveBuffers b = lay_out_head(arena, config, shape.targets, settings);
    b.correct = arena.tensor("head", DType::u8, {shape.targets});
    return b;
}

void LanguageModelObjective::run(const Context& ctx, const ObjectiveStep& s) const {
    const ObjectiveBuffers& b = s.buffers;
    const TokenLoss loss = s.gradients ? loss_ : TokenLoss::nll;
    HeadLoss head = head_over_targets(s);
    head.token_loss = loss;
    head_loss(ctx, head);
    add_loss_sums(
        ctx,
        {.sums = s.sums.slice(0, 0, 3), .nll = b.nll, .correct = b.correct, .weights = s.batch.weights, .loss = loss});
}

std::vector<Metric> LanguageModelObjective::metrics(const LossSums& sums, Phase phase) const {
    std::vector<Metric> metrics;
    if (phase == Phase::evaluation) metrics.emplace_back("perplexity", std::exp(sums.mean()));
    metrics.emplace_back("mean_token_accuracy", sums.accuracy());
    return metrics;
}

std::string LanguageModelObjective::figures(const LossSums& sums, Phase phase) const {
    if (phase == Phase::training) return fmt::format("loss {:.4f}", sums.mean());
    return fmt::format("loss {:.4f}, perplexity {:.2f}, accuracy {:.1f} %, {:.0f} targets", sums.mean(),
                       std::exp(sums.mean()), 100 * sums.accuracy(), sums.weight);
}

}  // namespace colonnade
