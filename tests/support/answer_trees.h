#pragma once
// Random samples with several answers to one prompt, and the same answers with prompts of their own.

#include "tests/support/tiny_model.h"
#include "train/objectives/preference_objective.h"

namespace colonnade {

/// A sample of random_sample() in which every token of an answer has a loss.
inline Sample tree(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab) {
    Sample s = random_sample(seed, stem, answers, vocab);
    for (size_t i = static_cast<size_t>(s.branch_begins[0]); i < s.weights.size(); ++i) s.weights[i] = 1;
    if (stem == 0) s.weights[0] = 0;
    return s;
}

/// Answer `branch` alone, after a copy of the prompt.
inline Sample answer_of(const Sample& s, size_t branch) {
    const auto begin = [&](size_t b) {
        return b < s.branch_begins.size() ? s.branch_begins[b] : static_cast<int32_t>(s.tokens.size());
    };
    Sample alone;
    alone.branch_begins = {0};
    for (const auto& [first, last] : {std::pair{0, begin(0)}, {begin(branch), begin(branch + 1)}}) {
        alone.tokens.insert(alone.tokens.end(), s.tokens.begin() + first, s.tokens.begin() + last);
        alone.weights.insert(alone.weights.end(), s.weights.begin() + first, s.weights.begin() + last);
    }
    return alone;
}

/// The same sample without a stem: every answer has its own copy of the prompt.
inline Sample repeated(const Sample& s) {
    Sample all;
    all.margin = s.margin;
    for (size_t b = 0; b < s.branch_begins.size(); ++b) {
        const Sample alone = answer_of(s, b);
        all.branch_begins.push_back(static_cast<int32_t>(all.tokens.size()));
        all.tokens.insert(all.tokens.end(), alone.tokens.begin(), alone.tokens.end());
        all.weights.insert(all.weights.end(), alone.weights.begin(), alone.weights.end());
    }
    return all;
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
