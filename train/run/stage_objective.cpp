#include "train/run/stage_objective.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "train/config/spellings.h"
#include "train/objectives/distillation_objective.h"
#include "train/objectives/language_model_objective.h"
#include "train/objectives/policy_objective.h"
#include "train/objectives/preference_objective.h"
#include "train/objectives/reward_objective.h"
#include "train/objectives/unpaired_objective.h"

namespace colonnade {

static PolicyOptions policy_options(const Config& c) {
    PolicyOptions o;
    o.settings = {.loss = *c.policy_loss,
                  .ratio = c.importance_sampling_level,
                  .epsilon_low = c.epsilon,
                  .epsilon_high = c.epsilon_high,
                  .delta = c.delta > 0 ? c.delta : INFINITY,
                  .sapo_temperature_pos = c.sapo_temperature_pos,
                  .sapo_temperature_neg = c.sapo_temperature_neg,
                  .beta = c.beta,
                  .kl = c.use_bias_correction_kl ? KlEstimate::bias_corrected : KlEstimate::plain};
    if (c.max_completion_length > 0) o.max_completion_length = static_cast<double>(c.max_completion_length);
    o.temperature = c.temperature;
    const double clip_max = c.vllm_importance_sampling_clip_max;
    o.importance = ImportanceSettings{.mode = c.vllm_importance_sampling_mode,
                                      .clip_min = c.vllm_importance_sampling_clip_min,
                                      .clip_max = clip_max > 0 ? clip_max : INFINITY};
    if (!c.vllm_importance_sampling_correction || c.old_logps == OldLogps::none) o.importance.reset();
    return o;
}

std::shared_ptr<const Objective> make_objective(const Config& c) {
    switch (c.stage) {
        case Stage::dpo: {
            PreferenceMix mix;
            mix.beta = c.beta;
            mix.label_smoothing = c.label_smoothing;
            mix.simpo_gamma = c.simpo_gamma;
            for (const PreferenceLoss loss : c.loss_type) {
                mix.losses[mix.count] = loss;
                mix.weights[mix.count] = c.loss_weights.at(static_cast<size_t>(mix.count));
                ++mix.count;
            }
            return std::make_shared<PreferenceObjective>(mix);
        }
        case Stage::rm:
            return std::make_shared<RewardObjective>(c.reward_loss, c.center_rewards_coefficient);
        case Stage::kto:
            return std::make_shared<UnpairedObjective>(UnpairedSettings{.loss = c.unpaired_loss.value(),
                                                                        .beta = c.beta,
                                                                        .desirable_weight = c.desirable_weight,
                                                                        .undesirable_weight = c.undesirable_weight});
        case Stage::grpo:
            return std::make_shared<PolicyObjective>(policy_options(c));
        case Stage::distill:
            return std::make_shared<DistillationObjective>(DistillationOptions{.beta = c.beta,
                                                                               .temperature = c.temperature,
                                                                               .divergence_weight = c.kd_alpha,
                                                                               .nll_weight = c.kd_ce_alpha});
        case Stage::pt:
        case Stage::sft:
            break;
    }
    return std::make_shared<LanguageModelObjective>(c.use_dft_loss ? TokenLoss::dft : TokenLoss::nll);
}

std::vector<Metric> evaluation_metrics(const Objective& objective, const LossSums& sums) {
    std::vector<Metric> metrics = {{"eval_loss", sums.mean()}};
    for (const auto& [name, value] : objective.metrics(sums, Phase::evaluation))
        metrics.emplace_back("eval_" + name, value);
    return metrics;
}

double metric_named(const std::vector<Metric>& metrics, const std::string& name) {
    const auto found = std::ranges::find(metrics, name, &Metric::first);
    if (found == metrics.end()) return std::nan("");
    return std::visit([](auto value) { return static_cast<double>(value); }, found->second);
}

void require_metric(const Config& c) {
    if (c.metric_for_best_model.empty()) return;
    std::vector<std::string> names;
    for (const Metric& metric : evaluation_metrics(*make_objective(c), {})) names.push_back(metric.first);
    if (std::ranges::find(names, c.metric_for_best_model) != names.end()) return;
    fail(Exit::config, "metric_for_best_model: evaluation in stage {} reports no '{}'; expected one of {}",
         spell(c.stage), c.metric_for_best_model, fmt::join(names, ", "));
}

}  // namespace colonnade
