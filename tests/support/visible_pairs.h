#pragma once
// Masks against the definition of what a query sees.

#include <gtest/gtest.h>

#include <functional>

#include "attention/mask.h"

namespace colonnade {

using Rule = std::function<bool(int64_t i, int64_t j)>;  // may query i see key j?

/// Compares every pair of `mask` (one batch, one head) with the definition of its family.
inline void expect_visible(const ColumnMask& mask, const Rule& rule) {
    mask.validate();
    const auto dense = mask.dense();
    ASSERT_EQ(dense.size(), static_cast<size_t>(mask.rows * mask.columns));
    for (int64_t i = 0; i < mask.rows; ++i)
        for (int64_t j = 0; j < mask.columns; ++j)
            ASSERT_EQ(dense[static_cast<size_t>(i * mask.columns + j)] != 0, rule(i, j))
                << "query " << i << ", key " << j << " of " << mask.rows << " x " << mask.columns;
}

}  // namespace colonnade
