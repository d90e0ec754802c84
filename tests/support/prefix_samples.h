#pragma once
// Samples as the packer knows them: lengths, and the prefix order of the leading sequences.

#include <algorithm>
#include <map>

#include "tests/support/token_forest.h"

namespace colonnade {

/// What a sample has beside its leading sequence is its own.
struct PrefixSamples {
    std::vector<Tokens> leading;
    std::vector<int64_t> lengths;
    PrefixOrder prefixes;

    /// Tokens of samples that share what their leading sequences begin with: the nodes of their trie.
    template <typename Numbers>
    int64_t distinct(const Numbers& samples) const {
        std::map<std::pair<int64_t, int32_t>, int64_t> children;  // (node, token): the child's number
        int64_t own = 0;
        for (const auto s : samples) {
            int64_t node = 0;
            for (const int32_t token : leading[static_cast<size_t>(s)])
                node = children.try_emplace({node, token}, std::ssize(children) + 1).first->second;
            own += lengths[static_cast<size_t>(s)] - std::ssize(leading[static_cast<size_t>(s)]);
        }
        return std::ssize(children) + own;
    }
    template <typename Numbers>
    int64_t represented(const Numbers& samples) const {
        int64_t sum = 0;
        for (const auto s : samples) sum += lengths[static_cast<size_t>(s)];
        return sum;
    }
};

inline PrefixSamples random_prefix_samples(uint64_t seed, int count) {
    PrefixSamples samples{.leading = random_forest(seed, count), .lengths = {}, .prefixes = {}};
    Draw draw(seed + 1000000);
    const int most = 1 + draw.below(20);
    for (const Tokens& s : samples.leading)
        samples.lengths.push_back(std::max<int64_t>(std::ssize(s) + draw.below(most), 1));
    samples.prefixes = Flat(samples.leading).sorted();
    return samples;
}

}  // namespace colonnade
