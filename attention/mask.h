#pragma once
// ColumnMask: FlashMask's column-wise attention mask (arXiv 2410.01359, section 4.1). For every key column j two ranges
// of query rows are hidden, [lts, lte) and [uts, ute); a causal mask also hides the future. Query i may not see key j
// iff
//
//     lts[j] <= i < lte[j]   or   uts[j] <= i < ute[j]   or   causal and j > i + (columns - rows)
//                            or   position_window > 0 and row_positions[i] - row_positions[j] >= position_window
//
// so a mask over N columns costs up to 5 N integers instead of N x N bits. Causal masks are aligned to the bottom right
// corner. With fewer columns than rows the first rows see nothing. Sliding windows over prefix trees need the positions:
// the rows past the window of a column are often more than two ranges.
//
// Headers of this library: mask.h (masks), tile_plan.h (plans), flashmask.h (the kernels; includes the other two),
// mask_families.h (masks by name), dense.h (the oracle).

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/device/error.h"

namespace colonnade {

/// The vectors that a mask carries. Defaults of absent vectors: lte = rows; lts = rows, so that the lower range is
/// empty; uts = 0; ute = 0, so that the upper range is empty.
enum class MaskVectors : uint8_t { none, lts, lts_lte, lts_ute, all };

struct ColumnMask {
    /// Largest number of rows or columns; one more still fits an int32_t.
    static constexpr int64_t max_length = std::numeric_limits<int32_t>::max() - 1;
    /// Largest row_position and position_window; the sum of both and a row of a tile fits an int32_t.
    static constexpr int64_t max_position = (int64_t{1} << 30) - 256;

    bool causal = true;
    MaskVectors vectors = MaskVectors::none;
    int64_t batch = 1;
    int64_t heads = 1;              ///< 1, or a divisor of the query heads: query head h uses h / (query_heads / heads)
    int64_t rows = 0, columns = 0;  ///< query and key length
    std::vector<int32_t> lts{}, lte{}, uts{}, ute{};  ///< [batch, heads, columns], or empty
    std::vector<int32_t> row_positions{};  ///< [batch, rows], of queries and keys (rows == columns); or empty
    int32_t position_window = 0;           ///< 0: no such rule, and no positions

    /// The hidden row ranges of one column, with defaults filled in.
    struct Bounds {
        int32_t lts, lte, uts, ute;
    };
    Bounds bounds(int64_t b, int64_t h, int64_t column) const;
    /// Returns n such that `column` is in the future of rows [0, n); 0 if the mask is not causal.
    int32_t causal_rows(int64_t column) const {
        return causal ? static_cast<int32_t>(std::clamp<int64_t>(column - (columns - rows), 0, rows)) : 0;
    }

    /// Throws Exit::data with vector, batch, head and column unless sizes are right, entries are within [0, rows], lts
    /// <= lte, uts <= ute, and the upper range ends before the lower one begins if both are non-empty. A causal mask
    /// carries no upper range unless vectors == all. Positions are within [0, max_position], their window within
    /// [1, max_position].
    void validate() const;

    /// Whether query `row` may see key `column`.
    bool sees(int64_t b, int64_t h, int64_t row, int64_t column) const;

    /// [batch, heads, rows, columns], 1 if the query may see the key. For tests and pictures: O(rows x columns).
    std::vector<uint8_t> dense() const;

    /// Returns this mask with keys also hidden that are `window` or more positions before the query: query i sees key j
    /// only if i + columns - rows - j < window. Throws Exit::config if the mask is not causal, or if a column needs
    /// more than two ranges.
    ColumnMask with_sliding_window(int64_t window) const;

    /// The same with distances between `positions` ([batch, rows], for keys and queries; rows == columns), which rise
    /// by one along each run of rows. A key is hidden from queries of its own and of later runs whose position is
    /// `window` or more beyond its own. So every branch of a sample sees as much of its stem as if it followed it
    /// directly, wherever it is packed. A key needs a range for each run that sees it only up to some row. If two
    /// suffice for every key, the result has ranges only, which cost the kernels least; otherwise it has the positions
    /// and the window. Throws Exit::config if the mask is not causal, or has a window of other positions.
    ColumnMask with_sliding_window(int64_t window, std::span<const int32_t> positions) const;
};

// --- Builders, one per family (figure 1 of the paper, and more). `ends` are cumulative document ends: {3, 8} stands
// for documents [0, 3) and [3, 8). With cu_seqlens {0, 3, 8} of other libraries, drop the leading 0. Columns past the
// last end are padding, which sees nothing and which nothing sees.
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
/// A sequence of a row whose sequences share prefixes, in the order of a walk of their trie.
struct WalkedSequence {
    int64_t shared;  ///< first tokens in common with the sequence before, which have columns already
    int64_t own;     ///< tokens after these, the next columns of the row
};
/// Every token sees the tokens before it in its sequences. A sequence with nothing in common with the one before it
/// begins another tree.
ColumnMask tree_mask(int64_t n, const std::vector<WalkedSequence>& sequences);
/// The position of every column in its sequences, [n]; 0 for columns past the last sequence.
std::vector<int32_t> tree_positions(int64_t n, const std::vector<WalkedSequence>& sequences);
ColumnMask global_sliding_window_mask(int64_t n, int64_t global_tokens, int64_t left, int64_t right);
ColumnMask causal_blockwise_mask(int64_t n, const std::vector<int64_t>& ends);  ///< the last block sees all blocks
ColumnMask prefix_lm_causal_mask(int64_t n, int64_t prefix);
ColumnMask prefix_lm_document_mask(int64_t n, const std::vector<int64_t>& ends, const std::vector<int64_t>& prefixes);
/// Consecutive columns.
struct ColumnRun {
    int64_t begin, length;
};
/// Hides the keys of a run from the queries of the run.
ColumnMask qk_sparse_mask(int64_t n, const std::vector<ColumnRun>& runs);
ColumnMask hash_sparse_mask(int64_t n, const std::vector<int32_t>& first_row, const std::vector<int32_t>& end_row);
ColumnMask random_eviction_mask(int64_t n, int64_t heads, int64_t first_evicting_row, uint64_t seed);

/// One mask whose batch is that of all `masks` together. They must have the same rows, columns, heads and `causal`, and
/// those with positions the same window; the result carries every vector that one of them carries.
ColumnMask stack(const std::vector<ColumnMask>& masks);

}  // namespace colonnade
