#pragma once
// Random samples that are prefix trees of any depth.

#include "engine/device/philox.h"
#include "tests/support/flat_sample.h"

namespace colonnade {

struct RandomTree {
    int64_t sequences = 5;  ///< at most
    int64_t tokens = 5;     ///< at most, of a sequence beyond what it shares
    int64_t vocab = 3;      ///< few, so that sequences also agree further by chance
};

/// Sequences that share any part of the one before: duplicates, whole prefixes, sequences without a token; any tokens
/// learned with weight 0.5 or 1, with and without advantages, rewards and log-probabilities. If there are several, the
/// sample has the pairs of a ranking, with weights, or none.
inline Sample random_tree(const Philox& random, uint64_t& at, const RandomTree& wanted = {}) {
    const auto draw = [&](int64_t n) { return static_cast<int64_t>(random.below(at++, static_cast<uint64_t>(n))); };
    Sample sample;
    int64_t before = 0;
    for (int64_t sequences = 1 + draw(wanted.sequences); sequences > 0; --sequences) {
        Sequence& sequence = sample.sequences.emplace_back();
        sequence.shared = static_cast<int32_t>(draw(before + 1));
        for (int64_t n = draw(wanted.tokens + 1); n > 0; --n)
            sequence.tokens.push_back(static_cast<int32_t>(draw(wanted.vocab)));
        before = sequence.length();
        std::vector<float> weights(static_cast<size_t>(before));
        for (float& w : weights) w = static_cast<float>(draw(3)) / 2;
        sequence.learned = learned_spans(weights);
        sequence.advantage = static_cast<float>(draw(3) - 1);
        if (draw(2)) sequence.reward = static_cast<float>(draw(5));
        for (const auto of : GivenLogps::all)
            for (int64_t n = draw(3) ? 0 : learned_tokens(sequence); n > 0; --n)
                (sequence.logps.*of).push_back(-static_cast<float>(draw(100)) / 8);
    }
    if (sample.sequences.size() > 1 && draw(2)) {
        sample.pairs = ranked_pairs(sample.sequences.size(), RankedPairs::all, {.margin = 0.25f});
        for (AnswerPair& pair : sample.pairs) pair.weight = static_cast<float>(1 + draw(4)) / 2;
    }
    return sample;
}

}  // namespace colonnade
