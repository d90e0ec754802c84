#pragma once
// Prefix order: what many token sequences have in common. Sequences are sorted lexicographically by their tokens, so
// that a walk over the order is a walk over their trie. lcp is the number of first tokens that each has in common with
// the one before it. These two arrays give everything else:
//
//     common part of any two sequences = the least lcp between them
//     tokens of the trie               = sum of lengths - sum of lcp
//
// Method: multikey quicksort along paths. Of a group that is known to agree in its first d tokens, one sequence is
// drawn as the pivot. Every other one is compared with it from token d on. It leaves the pivot's path at some depth h,
// to a smaller or a greater token t; sorting by (side, h, t) leaves groups that agree in h + 1 tokens. There is no
// hashing: the result is exact. It is the same for any number of threads, because ties go by number.
//
// Time: every comparison starts behind what was compared before, so only a pivot's tokens are read twice, and a
// sequence is read up to the first token that no other sequence shares. A sequence is compared O(log n) times on
// average over the draws, whatever the data is, and never more often than it has tokens. One thread does
// 150M to 340M tokens a second if sequences have 50 tokens. It does more if they are longer (300 tokens: 400M to 700M),
// since it only reads what they share.
// Memory: beside the tokens, 28 bytes a sequence (8 of them the result) and at most 7 more for groups that wait. At
// 100M tokens that is 2.8 MB for sequences of 1000 tokens, and 2.8 GB if every sequence is a single token.

#include <cstdint>
#include <span>
#include <vector>

namespace colonnade {

/// Token sequences that others own. They may overlap or leave tokens out: a part of each sample of a store, say.
struct TokenSequences {
    std::span<const int32_t> tokens;
    std::span<const int64_t> begins, ends;  ///< sequence i is tokens [begins[i], ends[i])

    /// Sequence i is tokens [offsets[i], offsets[i + 1]).
    static TokenSequences end_to_end(std::span<const int32_t> tokens, std::span<const int64_t> offsets);

    int64_t size() const { return static_cast<int64_t>(begins.size()); }
    int64_t length(int64_t i) const { return ends[static_cast<size_t>(i)] - begins[static_cast<size_t>(i)]; }
    const int32_t* data(int64_t i) const { return tokens.data() + begins[static_cast<size_t>(i)]; }
};

struct PrefixOrder {
    std::vector<int32_t> order;  ///< numbers of the sequences: a prefix first, then by token; equal ones by number
    std::vector<int32_t> lcp;    ///< lcp[k]: tokens that order[k] and order[k - 1] both begin with; lcp[0] = 0
};

/// Runs on the threads of OpenMP. Throws Exit::data for 2^31 sequences or more, or one of 2^30 tokens or more, and
/// Exit::internal for a sequence outside the tokens.
PrefixOrder prefix_order(const TokenSequences& sequences);

/// A node of the trie below which sequences part: what they have in common and nobody else.
struct SharedStem {
    int64_t first = 0;      ///< they are order[first, first + sequences)
    int64_t sequences = 0;  ///< that begin with it
    int64_t depth = 0;      ///< tokens from the root
    int64_t own = 0;        ///< of these, tokens below the next node towards the root

    int64_t saved() const { return own * (sequences - 1); }  ///< tokens that need not be computed again
};

/// Tokens before and after sharing, and where the difference comes from. Each sequence saves its lcp, and counts in one
/// of the four kinds: before - after = duplicates + continuations + stems + chance.
struct PrefixSharing {
    int64_t before = 0;               ///< sum of lengths
    int64_t after = 0;                ///< tokens of the trie
    int64_t duplicates = 0;           ///< saved by sequences that equal the one before
    int64_t continuations = 0;        ///< by those that the one before is a whole prefix of, such as a chat's next turn
    int64_t stems = 0;                ///< by those that part from the one before after `min_shared` tokens or more
    int64_t chance = 0;               ///< by those that part sooner
    std::vector<SharedStem> largest;  ///< the stems that save most, in decreasing order; ties in the order of the walk
};

struct SharingRequest {
    int64_t min_shared = 64;  ///< tokens; fewer in common may be there by chance
    size_t largest = 5;       ///< how many stems to name
};

/// O(n log(largest)) time. The stems' saved() over all nodes add up to before - after.
PrefixSharing prefix_sharing(const TokenSequences& sequences, const PrefixOrder& sorted,
                             const SharingRequest& request = {});

}  // namespace colonnade
