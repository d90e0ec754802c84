#include "train/objectives/distillation_objective.h"

#include <cmath>

#include "train/objectives/language_model_objective.h"

namespace colonnade {
namespace {

/// The objective's own sums: LossSums::more.
double mean_of(const LossSums& sums, size_t of) {
    return sums.weight > 0 ? sums.more[of] / sums.weight : 0;
}
double divergence(const LossSums& sums) {
    return mean_of(sums, 0);
}
double cross_entropy(const LossSums& sums) {
    return mean_of(sums, 1);
}

}  // namespace

ObjectiveBuffers DistillationObjective::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                                const HeadSettings& settings) const {
    ObjectiveBuffers b = lay_out_head(arena, config, shape.targets, settings);
    b.correct = arena.tensor("head", DType::u8, {shape.targets});
    b.divergences = arena.tensor("head", DType::f64, {shape.targets});
    return b;
}

void DistillationObjective::run(const Context& ctx, const ObjectiveStep& s) const {
    const ObjectiveBuffers& b = s.buffers;
    const DistillationOptions& o = options_;
    HeadLoss head = head_over_targets(s);
    head.teacher = TeacherTokens{.divergences = b.divergences,
                                 .ids = s.batch.teacher_ids,
                                 .log_probs = s.batch.teacher_log_probs,
                                 .beta = o.beta,
                                 .weight = o.divergence_weight,
                                 .target_weight = o.nll_weight};
    head.temperature = o.temperature;
    head_loss(ctx, head);
    add_loss_sums(ctx, {.sums = s.sums.slice(0, 0, 5),
                        .nll = b.nll,
                        .correct = b.correct,
                        .weights = s.batch.weights,
                        .divergences = b.divergences,
                        .divergence_weight = o.divergence_weight,
                        .nll_weight = o.nll_weight});
}

std::vector<Metric> DistillationObjective::metrics(const LossSums& sums, Phase phase) const {
    std::vector<Metric> metrics = {{"divergence", divergence(sums)}, {"cross_entropy", cross_entropy(sums)}};
    // At another temperature cross_entropy is not that of the language model.
    if (phase == Phase::evaluation && options_.temperature == 1)
        metrics.emplace_back("perplexity", std::exp(cross_entropy(sums)));
    metrics.emplace_back("mean_token_accuracy", sums.accuracy());
    return metrics;
}

std::string DistillationObjective::figures(const LossSums& sums, Phase phase) const {
    std::string text = fmt::format("loss {:.4f}", sums.mean());
    if (options_.nll_weight > 0) text += fmt::format(", divergence {:.4f}", divergence(sums));
    text += fmt::format(", cross-entropy {:.4f}", cross_entropy(sums));
    if (phase == Phase::evaluation)
        text += fmt::format(", accuracy {:.1f} %, {:.0f} targets", 100 * sums.accuracy(), sums.weight);
    return text;
}

}  // namespace colonnade
