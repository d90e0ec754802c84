#pragma once
// Token sequences with prefixes in common, for tests of the prefix order and of what packs by it.

#include <cstdint>
#include <vector>

#include "data/samples/prefix_order.h"
#include "tests/support/draw.h"

namespace colonnade {

using Tokens = std::vector<int32_t>;

/// Sequences as a store holds them: end to end.
struct Flat {
    std::vector<int32_t> tokens;
    std::vector<int64_t> offsets = {0};

    Flat() = default;
    explicit Flat(const std::vector<Tokens>& sequences) {
        for (const Tokens& s : sequences) add(s);
    }
    void add(const Tokens& s) {
        tokens.insert(tokens.end(), s.begin(), s.end());
        offsets.push_back(static_cast<int64_t>(tokens.size()));
    }
    TokenSequences view() const { return TokenSequences::end_to_end(tokens, offsets); }
    PrefixOrder sorted() const { return prefix_order(view()); }
};

/// Sequences that grow out of each other: a new one, or a part of an earlier one and something behind it. Some are
/// empty, some equal to earlier ones, some prefixes of them.
inline std::vector<Tokens> random_forest(uint64_t seed, int count) {
    Draw draw(seed);
    const int alphabet = 1 + draw.below(draw.below(2) ? 3 : 1000), longest = 1 + draw.below(40);
    std::vector<Tokens> forest;
    for (int i = 0; i < count; ++i) {
        Tokens s;
        if (i > 0 && draw.below(4) > 0) s = forest[static_cast<size_t>(draw.below(i))];
        if (draw.below(4) > 0) s.resize(static_cast<size_t>(draw.below(static_cast<int>(s.size()) + 1)));
        if (draw.below(3) > 0)
            for (int n = draw.below(longest); n > 0; --n) s.push_back(draw.below(alphabet) - alphabet / 2);
        forest.push_back(s);
    }
    return forest;
}

}  // namespace colonnade
