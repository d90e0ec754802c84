#pragma once
// Random walks of tries, for masks of prefix trees.

#include "attention/mask.h"
#include "engine/device/philox.h"

namespace colonnade {

/// Sequences that share any part of the one before, on many levels, with some padding after the last one: a row of n
/// tokens. `longest`: tokens of a sequence beyond what it shares; by default a share of the row.
inline std::vector<WalkedSequence> random_walk(uint64_t seed, int64_t n, int64_t longest = 0) {
    uint64_t draws = 0;
    const auto below = [&](int64_t m) {
        return static_cast<int64_t>(Philox{seed, 8}.below(draws++, static_cast<uint64_t>(m)));
    };
    if (longest == 0) longest = 1 + n / (2 + below(9));
    std::vector<WalkedSequence> sequences;
    for (int64_t left = n - below(1 + n / 8), before = 0; left > 0;) {
        // Some begin another tree; most leave the sequence before near its end, so that trees become deep.
        const int64_t shared = below(6) == 0 ? 0 : before - below(1 + std::min(before, 1 + longest / 2)),
                      own = std::min(left, below(1 + longest));
        sequences.push_back({shared, own});
        before = shared + own, left -= own;
    }
    return sequences;
}

/// A random tree of n tokens within a window of positions, in a batch with a plain document.
inline ColumnMask tree_within_window(uint64_t seed, int64_t n, int64_t longest = 0) {
    const auto walk = random_walk(seed, n, longest);
    ColumnMask tree = tree_mask(n, walk);
    tree.row_positions = tree_positions(n, walk);  // even if ranges could say it
    tree.position_window = static_cast<int32_t>(1 + seed * 31 % static_cast<uint64_t>(1 + n / 4));
    return stack({tree, causal_document_mask(n, {n})});
}

}  // namespace colonnade
