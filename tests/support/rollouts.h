#pragma once
// Answers that a model drew, as samples of stage grpo.

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/answer_trees.h"

namespace colonnade {

/// Groups of answers to prompts of several lengths, one sample each: equal answers, one that another begins with, one
/// without a learned token, tokens of weight 0.5, with advantages and, mostly, rewards.
inline std::vector<Sample> random_rollouts(uint64_t seed, int64_t vocab) {
    const Philox random{seed, 17};
    uint64_t draw = 0;
    std::vector<Sample> samples;
    for (const int64_t prompt : {30, 1, 9}) {
        const Sample group = tree(seed + static_cast<uint64_t>(prompt), prompt, {24, 11, 3, 40}, vocab);
        for (size_t k = 0; k < 6; ++k) {
            Sequence s{.tokens = group.whole(k % 4), .learned = group.sequences[k % 4].learned};
            if (k == 5) {  // what answer 1 begins with
                s.tokens.resize(s.tokens.size() - 4);
                s.learned[0].end -= 4;
            }
            if (k == 2) s.learned.clear();
            if (k % 2 && s.learned[0].end - s.learned[0].begin > 4)
                s.learned.push_back({s.learned[0].end - 2, s.learned[0].end, 0.5}), s.learned[0].end -= 3;
            s.advantage = static_cast<float>(random.normal(draw++));
            if (k != 3) s.reward = static_cast<float>(random.below(draw++, 5)) / 4;
            samples.push_back({.sequences = {std::move(s)}});
        }
    }
    return samples;
}

/// Gives rollouts log-probabilities near those of a model, which learner.measure() returns. Some are not known: of a
/// sequence, or of a token.
inline void give_logps(std::vector<Sample>& samples, Learner& learner, uint64_t seed, double spread = 0.3) {
    const Philox random{seed, 18};
    uint64_t draw = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
        GivenLogps& given = samples[i].sequences[0].logps = {};
        for (const double logp : learner.measure(learner.context(), make_batch({{&samples[i]}}))) {
            const auto near = [&](double width) {
                return static_cast<float>(std::min(logp + width * random.normal(draw++), -1e-3));
            };
            given.old.push_back(near(spread));
            given.sampled.push_back(near(spread / 4));
            given.reference.push_back(near(spread));
            if (given.old.size() % 7 == 3) given.old.back() = std::numeric_limits<float>::quiet_NaN();
        }
        if (i % 5 == 1) given.old.clear();
        if (i % 5 == 2) given.sampled.clear();
    }
}

}  // namespace colonnade
