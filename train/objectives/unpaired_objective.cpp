#include "train/objectives/unpaired_objective.h"

#include "layers/unpaired_loss.h"
#include "train/objectives/answer_logps.h"
#include "train/objectives/language_model_objective.h"

namespace colonnade {
namespace {

/// UnpairedSums have the layout of LossSums. The number of desirable answers is in the place of correct targets.
static_assert(UnpairedSums::count <= LossSums::sums && UnpairedSums::loss == 0 && UnpairedSums::answers == 1 &&
              UnpairedSums::desirable == 2);
double sum_of(const LossSums& sums, UnpairedSums::Name name) {
    return sums.more[static_cast<size_t>(name) - UnpairedSums::chosen_reward];
}
double ratio(double sum, double count) {
    return count > 0 ? sum / count : 0;
}

/// Means over the answers of each label.
struct Means {
    bool chosen, rejected;  ///< whether there are any; true without any answer, so that all metrics have a name
    double chosen_reward, rejected_reward, chosen_logp, rejected_logp, z;

    explicit Means(const LossSums& sums) {
        const double desirable = sums.correct, undesirable = sums.weight - sums.correct;
        chosen = desirable > 0 || sums.weight == 0;
        rejected = undesirable > 0 || sums.weight == 0;
        chosen_reward = ratio(sum_of(sums, UnpairedSums::chosen_reward), desirable);
        rejected_reward = ratio(sum_of(sums, UnpairedSums::rejected_reward), undesirable);
        chosen_logp = ratio(sum_of(sums, UnpairedSums::chosen_logp), desirable);
        rejected_logp = ratio(sum_of(sums, UnpairedSums::rejected_logp), undesirable);
        z = ratio(sum_of(sums, UnpairedSums::z), sums.weight);
    }
};

}  // namespace

ObjectiveBuffers UnpairedObjective::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                            const HeadSettings& settings) const {
    ObjectiveBuffers b = lay_out_head(arena, config, shape.targets, settings);
    b.answers = arena.tensor("head", DType::f64, {shape.sequences});
    if (settings.training) b.slopes = arena.tensor("head", DType::f64, {shape.sequences});
    return b;
}

void UnpairedObjective::measure(const Context& ctx, const ObjectiveStep& s) const {
    measure_logps(ctx, s);
}

void UnpairedObjective::run(const Context& ctx, const ObjectiveStep& s) const {
    measure_logps(ctx, s);
    unpaired_loss(ctx, {.sums = s.sums.slice(0, 0, UnpairedSums::count),
                        .coefficients = s.gradients ? s.buffers.slopes : Tensor(),
                        .logps = s.buffers.answers,
                        .reference = s.batch.reference,
                        .labels = s.batch.labels,
                        .mismatched = s.mismatched,
                        .mismatched_count = s.mismatched_count,
                        .settings = settings_,
                        .scale = s.total > 0 ? 1 / s.total : 0});
    if (s.gradients) backward_logps(ctx, s);
}

std::vector<Metric> UnpairedObjective::metrics(const LossSums& sums, Phase) const {
    const Means means(sums);
    std::vector<Metric> metrics;
    if (needs_mismatched()) metrics.emplace_back("kl", means.z);
    if (means.chosen) metrics.emplace_back("rewards/chosen", means.chosen_reward);
    if (means.rejected) metrics.emplace_back("rewards/rejected", means.rejected_reward);
    if (means.chosen && means.rejected)
        metrics.emplace_back("rewards/margins", means.chosen_reward - means.rejected_reward);
    if (means.chosen) metrics.emplace_back("logps/chosen", means.chosen_logp);
    if (means.rejected) metrics.emplace_back("logps/rejected", means.rejected_logp);
    return metrics;
}

std::string UnpairedObjective::figures(const LossSums& sums, Phase phase) const {
    const Means means(sums);
    std::string text = fmt::format("loss {:.4f}", sums.mean());
    if (means.chosen && means.rejected)
        text += fmt::format(", margin {:.4f}", means.chosen_reward - means.rejected_reward);
    if (needs_mismatched()) text += fmt::format(", kl {:.4f}", means.z);
    if (phase == Phase::evaluation) text += fmt::format(", {:.0f} answers", sums.weight);
    return text;
}

std::optional<double> UnpairedObjective::untrained_loss() const {
    if (settings_.desirable_weight != settings_.undesirable_weight) return {};  // it depends on the labels
    return unpaired_loss(settings_, AnswerLabel::desirable, 0, 0).value;
}

}  // namespace colonnade
