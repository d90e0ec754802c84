#pragma once
// Random samples with several answers to one prompt, and their sequences alone.

#include "tests/support/tiny_model.h"
#include "train/objectives/preference_objective.h"

namespace colonnade {

/// A sample in which every token of an answer has a loss.
inline Sample tree(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab) {
    return random_answers(seed, stem, answers, vocab);
}

/// Stage dpo with the sigmoid loss alone.
inline std::shared_ptr<const Objective> sigmoid_objective() {
    PreferenceMix mix;
    mix.count = 1;
    mix.losses[0] = PreferenceLoss::sigmoid;
    mix.weights[0] = 1;
    return std::make_shared<PreferenceObjective>(mix);
}

}  // namespace colonnade
