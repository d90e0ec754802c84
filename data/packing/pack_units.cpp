#include "data/packing/pack_units.h"

#include <algorithm>

namespace colonnade {
namespace {

/// The trie as a binary tree. Node k parts walk places [first, end) into [first, k) and [k, end), which have lcp[k]
/// tokens in common. A node of the trie with m children is m - 1 nodes here. -1: nothing is left to part.
struct Partings {
    std::vector<int32_t> before, behind;  ///< nodes of the two parts
    int32_t root = -1;
};

Partings partings_of(const std::vector<int32_t>& lcp) {
    Partings nodes{.before = std::vector<int32_t>(lcp.size(), -1), .behind = std::vector<int32_t>(lcp.size(), -1)};
    std::vector<int32_t> open;  // from the root to the node added last
    for (size_t k = 1; k < lcp.size(); ++k) {
        while (!open.empty() && lcp[static_cast<size_t>(open.back())] > lcp[k]) {
            nodes.before[k] = open.back();
            open.pop_back();
        }
        if (!open.empty()) nodes.behind[static_cast<size_t>(open.back())] = static_cast<int32_t>(k);
        open.push_back(static_cast<int32_t>(k));
    }
    if (!open.empty()) nodes.root = open.front();
    return nodes;
}

/// Tokens of any samples that are next to each other in walk order.
class RangeTokens {
  public:
    RangeTokens(std::span<const int64_t> lengths, const PrefixOrder& prefixes)
        : lcp_(prefixes.lcp), own_(lengths.size() + 1), lengths_(lengths.size() + 1) {
        for (size_t k = 0; k < lengths.size(); ++k) {
            const int64_t length = lengths[static_cast<size_t>(prefixes.order[k])];
            own_[k + 1] = own_[k] + length - lcp_[k];
            lengths_[k + 1] = lengths_[k] + length;
        }
    }
    bool fit(size_t first, size_t end, const UnitLimits& limits) const {
        return own_[end] - own_[first] + lcp_[first] <= limits.tokens &&
               (lengths_[end] - lengths_[first]) / limits.most_represented < limits.tokens;
    }
    /// Whether samples share, beyond their first `stem` tokens, at least half of what they have beyond these on average.
    bool share_half(size_t first, size_t end, int64_t stem, int64_t depth) const {
        const auto samples = static_cast<int64_t>(end - first);
        return 2 * samples * (depth - stem) >= lengths_[end] - lengths_[first] - samples * stem;
    }

    /// Whether [first, end) are at least 15 of 16 of `samples`.
    static bool nearly_all(size_t first, size_t end, int32_t samples) {
        return 16 * static_cast<int64_t>(end - first) >= 15 * int64_t{samples};
    }

  private:
    const std::vector<int32_t>& lcp_;
    std::vector<int64_t> own_, lengths_;  // sums over the places before
};

}  // namespace

PackUnits pack_units(std::span<const int64_t> lengths, const PrefixOrder& prefixes, const UnitLimits& limits) {
    struct Range {
        int32_t first, end, node, stem;
        int32_t of_stem;  ///< samples that begin with the stem
        int32_t
            dissolved;  ///< depth of the node above if it was dissolved; one of equal depth is the same node of the trie
    };
    PackUnits result;
    if (lengths.empty()) return result;
    const Partings nodes = partings_of(prefixes.lcp);
    const RangeTokens tokens(lengths, prefixes);
    std::vector<Range> left = {{.first = 0,
                                .end = static_cast<int32_t>(lengths.size()),
                                .node = nodes.root,
                                .stem = 0,
                                .of_stem = static_cast<int32_t>(lengths.size()),
                                .dissolved = 0}};
    while (!left.empty()) {
        auto [first, end, node, stem, of_stem, dissolved] = left.back();
        left.pop_back();
        const int32_t depth = node < 0 ? 0 : prefixes.lcp[static_cast<size_t>(node)];
        const int32_t above = result.stems[static_cast<size_t>(stem)].depth;
        const auto from = static_cast<size_t>(first), to = static_cast<size_t>(end);
        const bool kept = depth > std::max(above, dissolved) && limits.min_shared != UnitLimits::never &&
                          (depth - above >= limits.min_shared || tokens.share_half(from, to, above, depth) ||
                           RangeTokens::nearly_all(from, to, of_stem));
        if (node < 0 || (kept && tokens.fit(from, to, limits))) {
            result.units.push_back({.first = first, .end = end, .stem = stem});
            continue;
        }
        if (kept) {
            result.stems.push_back({.parent = stem, .depth = depth});
            stem = static_cast<int32_t>(result.stems.size()) - 1;
            of_stem = end - first;
        } else {
            dissolved = depth;
        }
        const auto at = static_cast<size_t>(node);
        left.push_back({.first = node,
                        .end = end,
                        .node = nodes.behind[at],
                        .stem = stem,
                        .of_stem = of_stem,
                        .dissolved = dissolved});
        left.push_back({.first = first,
                        .end = node,
                        .node = nodes.before[at],
                        .stem = stem,
                        .of_stem = of_stem,
                        .dissolved = dissolved});
    }
    return result;
}

}  // namespace colonnade
