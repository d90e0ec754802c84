#include "train/run/stage_objective.h"

#include "train/objectives/language_model_objective.h"
#include "train/objectives/preference_objective.h"
#include "train/objectives/reward_objective.h"

namespace colonnade {

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
        case Stage::pt:
        case Stage::sft:
            break;
    }
    return std::make_shared<LanguageModelObjective>();
}

}  // namespace colonnade
