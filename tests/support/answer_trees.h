#pragma once
// Random samples with several answers to one prompt, and their sequences alone.

#include "tests/support/tiny_model.h"
#include "train/objectives/preference_objective.h"

namespace colonnade {

/// A sample of random_sample() in which every token of an answer has a loss.
inline Sample tree(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab) {
    Sample s = random_sample(seed, stem, answers, vocab);
    for (Sequence& sequence : s.sequences) {
        const auto begin = static_cast<int32_t>(std::max<int64_t>(stem, 1)),
                   end = static_cast<int32_t>(sequence.length());
        sequence.learned.clear();
        if (begin < end) sequence.learned.push_back({begin, end, 1});
    }
    return s;
}

/// Sequence `number` alone.
inline Sample alone(const Sample& s, size_t number) {
    return {.sequences = {{.tokens = s.whole(number), .learned = s.sequences[number].learned}}};
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
