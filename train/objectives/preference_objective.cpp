#include "train/objectives/preference_objective.h"

#include <algorithm>

#include "layers/preference_loss.h"
#include "train/objectives/answer_logps.h"
#include "train/objectives/language_model_objective.h"

namespace colonnade {
namespace {

/// PairSums have the layout of LossSums.
static_assert(PairSums::count <= LossSums::sums && PairSums::loss == 0 && PairSums::weight == 1 &&
              PairSums::correct == 2);
double sum_of(const LossSums& sums, PairSums::Name name) {
    return sums.more[static_cast<size_t>(name) - PairSums::chosen_reward];
}
double per_pair(const LossSums& sums, double sum) {
    const double pairs = sum_of(sums, PairSums::pairs);
    return pairs > 0 ? sum / pairs : 0;
}
double mean_of(const LossSums& sums, PairSums::Name name) {
    return per_pair(sums, sum_of(sums, name));
}
double pair_accuracy(const LossSums& sums) {
    return per_pair(sums, sums.correct);
}

}  // namespace

ObjectiveBuffers PreferenceObjective::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                              const HeadSettings& settings) const {
    ObjectiveBuffers b = lay_out_head(arena, config, shape.targets, settings);
    b.answers = arena.tensor("head", DType::f64, {shape.sequences});
    if (settings.training) {
        b.slopes = arena.tensor("head", DType::f64, {shape.sequences});
        b.pair_slopes = arena.tensor("head", DType::f64, {shape.pairs, 2});
    }
    return b;
}

bool PreferenceObjective::has(PreferenceLoss loss) const {
    return std::find(mix_.losses, mix_.losses + mix_.count, loss) != mix_.losses + mix_.count;
}

bool PreferenceObjective::needs_reference() const {
    return std::any_of(mix_.losses, mix_.losses + mix_.count, colonnade::needs_reference);
}

void PreferenceObjective::measure(const Context& ctx, const ObjectiveStep& s) const {
    measure_logps(ctx, s);
}

void PreferenceObjective::run(const Context& ctx, const ObjectiveStep& s) const {
    const ObjectiveBuffers& b = s.buffers;
    measure_logps(ctx, s);
    preference_loss(ctx, {.sums = s.sums.slice(0, 0, PairSums::count),
                          .coefficients = s.gradients ? b.slopes : Tensor(),
                          .slopes = b.pair_slopes,
                          .logps = b.answers,
                          .reference = needs_reference() ? s.batch.reference : Tensor(),
                          .lengths = s.batch.lengths,
                          .table = s.batch.pairs,
                          .mix = mix_,
                          .scale = s.total > 0 ? 1 / s.total : 0});
    if (s.gradients) backward_logps(ctx, s);
}

std::vector<Metric> PreferenceObjective::metrics(const LossSums& sums, Phase) const {
    const double chosen = mean_of(sums, PairSums::chosen_reward), rejected = mean_of(sums, PairSums::rejected_reward);
    std::vector<Metric> metrics = {{"rewards/chosen", chosen},
                                   {"rewards/rejected", rejected},
                                   {"rewards/accuracies", pair_accuracy(sums)},
                                   {"rewards/margins", chosen - rejected},
                                   {"logps/chosen", mean_of(sums, PairSums::chosen_logp)},
                                   {"logps/rejected", mean_of(sums, PairSums::rejected_logp)}};
    if (has(PreferenceLoss::sft) || has(PreferenceLoss::orpo))
        metrics.emplace_back("nll_loss", mean_of(sums, PairSums::chosen_nll));
    return metrics;
}

std::string PreferenceObjective::figures(const LossSums& sums, Phase phase) const {
    std::string text =
        fmt::format("loss {:.4f}, accuracy {:.1f} %, margin {:.4f}", sums.mean(), 100 * pair_accuracy(sums),
                    mean_of(sums, PairSums::chosen_reward) - mean_of(sums, PairSums::rejected_reward));
    if (phase == Phase::evaluation) text += fmt::format(", {:.0f} pairs", sum_of(sums, PairSums::pairs));
    return text;
}

std::optional<double> PreferenceObjective::untrained_loss() const {
    for (int i = 0; i < mix_.count; ++i)
        if (!colonnade::needs_reference(mix_.losses[i])) return {};
    return pair_loss(mix_, {-1, -1, -1, -1, 1, 1}).value;
}

}  // namespace colonnade
