#pragma once
// The order in which the sequences of a row are laid out if the row shares whatever they have in common: a walk over
// their trie. Of the subtrees below a node the largest comes first, because attention then skips more of its tiles:
// tokens of a small subtree between a trunk and its continuation would be columns that the continuation never sees.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace colonnade {

struct PlacedSequence {
    size_t sequence;  ///< its number
    int64_t shared;   ///< first tokens in common with the sequence placed before it
};

/// Each sequence once. Sum of lengths - sum of `shared` = distinct prefixes of the sequences. Ties go by token, then by
/// number, so that the order is a function of the sequences alone. O(n log n) comparisons.
std::vector<PlacedSequence> row_order(const std::vector<std::vector<int32_t>>& sequences);

}  // namespace colonnade
