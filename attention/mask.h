#pragma once
// ColumnMask: FlashMask's column-wise attention mask (arXiv 2410.01359, section 4.1). For every key column j two ranges
// of query rows are hidden, [lts, lte) and [uts, ute); a causal mask also hides the future. Query i may not see key j
// iff
//
//     lts[j] <= i < lte[j]   or   uts[j] <= i < ute[j]   or   causal and j > i + (columns - rows)
//
// so a mask over N columns costs 4 N integers instead of N x N bits. Causal masks are aligned to the bottom right
// corner when there are more columns than rows (or fewer: then the first rows see nothing).

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/device/error.h"

namespace colonnade {

/// Which vectors a mask carries. An absent vector has its default: lts = lte = rows (nothing hidden below) without
/// `lts`; lte = rows with it; uts = ute = 0 without `ute`, uts = 0 with it.
enum class MaskVectors : uint8_t { none, lts, lts_lte, lts_ute, all };

struct ColumnMask {
    /// Rows and columns at most: one more still fits an int32_t.
    static constexpr int64_t max_length = std::numeric_limits<int32_t>::max() - 1;

    bool causal = true;
    MaskVectors vectors = MaskVectors::none;
    int64_t batch = 1;
    int64_t heads = 1;              ///< 1, or a divisor of the query heads: query head h uses h / (query_heads / heads)
    int64_t rows = 0, columns = 0;  ///< query and key length
    std::vector<int32_t> lts{}, lte{}, uts{}, ute{};  ///< [batch, heads, columns], or empty

    /// The hidden row ranges of one column, defaults filled in.
    struct Bounds {
        int32_t lts, lte, uts, ute;
    };
    Bounds bounds(int64_t b, int64_t h, int64_t column) const;
    /// Rows [0, n) for which `column` lies in the future; 0 for masks that are not causal.
    int32_t causal_rows(int64_t column) const {
        return causal ? static_cast<int32_t>(std::clamp<int64_t>(column - (columns - rows), 0, rows)) : 0;
    }

    /// Throws Exit::data naming vector, batch, head and column: sizes, entries within [0, rows], lts <= lte, uts <=
    /// ute, and the upper range before the lower one where both are non-empty (the order in which backward walks the
    /// rows). A causal mask carries no upper range unless vectors == all.
    void validate() const;

    /// [batch, heads, rows, columns], 1 where query may see key. For tests and pictures: O(rows x columns).
    std::vector<uint8_t> dense() const;

    /// This mask with, in addition, keys more than `window` - 1 positions before the query hidden: i - j < window,
    /// counted on aligned positions (i + columns - rows - j). For causal masks. Throws Exit::config where two ranges
    /// cannot say it.
    ColumnMask with_sliding_window(int64_t window) const;

    /// The same, with distances counted on positions ([batch, rows], the same for keys and queries; rows == columns)
    /// that rise by one along runs of rows: a key is hidden from queries of its run and of later ones whose position is
    /// `window` or more beyond its own. So a branch that is packed behind another one sees its stem from where it
    /// follows it. Throws Exit::config where that takes more than two ranges: a key that several runs see up to
    /// somewhere within them has one range for each.
    ColumnMask with_sliding_window(int64_t window, std::span<const int32_t> positions) const;
};

// --- Builders: one per family (figure 1 of the paper, and more). `ends` are cumulative document ends: {3, 8}
// is documents [0, 3) and [3, 8); columns past the last end are padding that nobody sees and that sees nothing.
ColumnMask full_mask(int64_t rows, int64_t columns);
ColumnMask causal_mask(int64_t rows, int64_t columns);
ColumnMask sliding_window_mask(int64_t n, int64_t window);                     ///< causal, `window` keys including self
ColumnMask bidirectional_window_mask(int64_t n, int64_t left, int64_t right);  ///< i - left <= j <= i + right
ColumnMask causal_document_mask(int64_t n, const std::vector<int64_t>& ends);
ColumnMask document_mask(int64_t n, const std::vector<int64_t>& ends);
/// One entry per sample of a pack, in tokens: a stem seen by all its branches, and branches that see the stem and
/// themselves.
struct BranchedSample {
    int64_t stem;
    std::vector<int64_t> branches;
};
ColumnMask share_question_mask(int64_t n, const std::vector<BranchedSample>& samples);
ColumnMask global_sliding_window_mask(int64_t n, int64_t global_tokens, int64_t left, int64_t right);
ColumnMask causal_blockwise_mask(int64_t n, const std::vector<int64_t>& ends);  ///< the last block sees all blocks
ColumnMask prefix_lm_causal_mask(int64_t n, int64_t prefix);
ColumnMask prefix_lm_document_mask(int64_t n, const std::vector<int64_t>& ends, const std::vector<int64_t>& prefixes);
struct Run {
    int64_t begin, length;
};
ColumnMask qk_sparse_mask(int64_t n, const std::vector<Run>& runs);
ColumnMask hash_sparse_mask(int64_t n, const std::vector<int32_t>& first_row, const std::vector<int32_t>& end_row);
ColumnMask random_eviction_mask(int64_t n, int64_t heads, int64_t first_evicting_row, uint64_t seed);

/// Masks of equal rows, columns, heads, causal as one mask with a batch of all of them; vectors are the widest any
/// needs.
ColumnMask stack(const std::vector<ColumnMask>& masks);

}  // namespace colonnade
