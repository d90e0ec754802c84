#pragma once
// Pack units: the samples that the packer treats as one, and the stems that rows repeat. Both are read off the trie of
// the samples' leading sequences (data/samples/prefix_order.h) from the root down. At a node of depth d below a stem of
// depth f:
//
//     d - f < min_shared, and less than half of what its samples have beyond f on average, and less than 15 of 16 of the
//     stem's samples               the node is dissolved: the stem takes its children. Words that are equal by chance
//                                  ("How do I") do not tie samples together; a system prompt that all have does, and
//                                  ties none closer than others
//     the samples fit in a row     they are one unit, packed and shuffled as one
//     they do not fit              the node is a new stem with its own children, and every row that holds one of
//                                  them computes its d tokens again
//
// A sample that no such node holds is a unit of its own. Nothing here depends on the epoch. O(n) time; 32 bytes a sample
// while it runs and 12 to 20 in the result.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "data/samples/prefix_order.h"

namespace colonnade {

struct PackUnit {
    int32_t first, end;  ///< its samples are PrefixOrder::order[first, end)
    int32_t stem;        ///< the deepest stem that its samples begin with
};

struct PackStem {
    int32_t parent;  ///< the next stem towards the root
    int32_t depth;   ///< tokens from the root
};

struct PackUnits {
    std::vector<PackUnit> units;                                 ///< in walk order
    std::vector<PackStem> stems = {{.parent = -1, .depth = 0}};  ///< the root first, each before its children
};

struct UnitLimits {
    int64_t tokens = 0;      ///< of a unit, its path from the root included
    int64_t min_shared = 0;  ///< at least 1; `never`: every sample is a unit of its own
    static constexpr int64_t never = std::numeric_limits<int64_t>::max();
    /// The samples of a unit represent less than this many times `tokens`, and those of a row less than twice as many.
    /// What a row represents is the sum of its samples' lengths, however few tokens it computes.
    int64_t most_represented = 64;
};

/// `lengths`: tokens of each sample alone, at most limits.tokens. `prefixes`: order and lcp of their leading sequences.
PackUnits pack_units(std::span<const int64_t> lengths, const PrefixOrder& prefixes, const UnitLimits& limits);

}  // namespace colonnade
