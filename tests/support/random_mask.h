#pragma once
// Random valid column masks of every form, for property tests.

#include "attention/mask.h"
#include "engine/device/philox.h"

namespace colonnade {

inline ColumnMask random_column_mask(uint64_t seed, int64_t batch, int64_t heads, int64_t rows, int64_t columns) {
    uint64_t draws = 0;
    const auto below = [&](int64_t n) {
        return static_cast<int64_t>(Philox{seed, 7}.below(draws++, static_cast<uint64_t>(n)));
    };
    constexpr MaskVectors forms[] = {MaskVectors::none, MaskVectors::lts, MaskVectors::lts_lte, MaskVectors::all,
                                     MaskVectors::lts_ute};
    ColumnMask m{.causal = below(2) == 1, .batch = batch, .heads = heads, .rows = rows, .columns = columns};
    m.vectors = forms[below(m.causal ? 4 : 5)];
    // Columns come in runs of equal bounds, so that there are also empty and full tiles.
    int64_t cut[4] = {};
    for (int64_t i = 0; i < batch * heads * columns; ++i) {
        if (below(8) == 0 || i == 0) {
            for (int64_t& c : cut) c = below(4) == 0 ? below(2) * rows : below(rows + 1);
            std::sort(cut, cut + 4);
        }
        const auto put = [&](std::vector<int32_t>& v, int64_t value) { v.push_back(static_cast<int32_t>(value)); };
        const bool all = m.vectors == MaskVectors::all;
        if (m.vectors != MaskVectors::none) put(m.lts, cut[2]);
        if (all || m.vectors == MaskVectors::lts_lte) put(m.lte, cut[3]);
        if (all) put(m.uts, cut[0]);
        if (all || m.vectors == MaskVectors::lts_ute) put(m.ute, cut[1]);
    }
    return m;
}

/// A random mask of n x n whose rows have random positions, runs that rise and jumps, and a window.
inline ColumnMask random_positions_mask(uint64_t seed, int64_t batch, int64_t heads, int64_t n) {
    ColumnMask mask = random_column_mask(seed, batch, heads, n, n);
    const Philox random{seed, 9};
    int32_t position = 0;
    for (int64_t i = 0; i < batch * n; ++i) {
        const auto draw = static_cast<int32_t>(random.below(static_cast<uint64_t>(i), 12 * 40));
        position = draw % 12 == 0 ? draw / 12 : position + 1;
        mask.row_positions.push_back(position);
    }
    if (n > 0) mask.position_window = static_cast<int32_t>(1 + seed % 40);
    return mask;
}

}  // namespace colonnade
