#pragma once
// Samples of one shared stem as flat arrays, which tests write and read more easily.

#include "data/samples/sample.h"

namespace colonnade {

struct FlatSample {
    std::vector<int32_t> tokens{};      ///< the stem, then what each sequence has beyond it
    std::vector<float> weights{};       ///< of each token; those of the stem and of a first token do not count
    std::vector<int32_t> begins = {0};  ///< where each sequence's own part begins; the stem ends at begins[0]
    float margin = 0;                   ///< of every pair: with several sequences, each beats the later ones
};

inline Sample sample_of(const FlatSample& flat) {
    Sample sample;
    const auto stem = static_cast<size_t>(flat.begins[0]);
    for (size_t s = 0; s < flat.begins.size(); ++s) {
        const auto begin = static_cast<size_t>(flat.begins[s]);
        const size_t end = s + 1 < flat.begins.size() ? static_cast<size_t>(flat.begins[s + 1]) : flat.tokens.size();
        std::vector<float> weights(stem, 0.0f);
        weights.insert(weights.end(), flat.weights.begin() + flat.begins[s],
                       flat.weights.begin() + static_cast<std::ptrdiff_t>(end));
        const auto at = [&](size_t i) { return flat.tokens.begin() + static_cast<std::ptrdiff_t>(i); };
        sample.sequences.push_back({.shared = s > 0 ? flat.begins[0] : 0,
                                    .tokens = {at(s > 0 ? begin : 0), at(end)},
                                    .learned = learned_spans(weights)});
    }
    if (sample.sequences.size() > 1)
        sample.pairs = ranked_pairs(sample.sequences.size(), RankedPairs::all, {.margin = flat.margin});
    return sample;
}

/// Of each token of a whole sequence.
inline std::vector<float> weights_of(const Sequence& sequence) {
    std::vector<float> weights(static_cast<size_t>(sequence.length()));
    for (const auto& [begin, end, weight] : sequence.learned)
        std::fill(weights.begin() + begin, weights.begin() + end, weight);
    return weights;
}

inline FlatSample flat(const Sample& sample) {
    const int64_t stem = sample.common();
    FlatSample result{.begins = {}};
    for (size_t s = 0; s < sample.sequences.size(); ++s) {
        const std::vector<int32_t> whole = sample.whole(s);
        const std::vector<float> weights = weights_of(sample.sequences[s]);
        const int64_t from = s > 0 ? stem : 0;
        result.begins.push_back(static_cast<int32_t>(std::ssize(result.tokens) + stem - from));
        result.tokens.insert(result.tokens.end(), whole.begin() + from, whole.end());
        result.weights.insert(result.weights.end(), weights.begin() + from, weights.end());
    }
    result.margin = sample.pairs.empty() ? 0 : sample.pairs[0].margin;
    return result;
}

}  // namespace colonnade
