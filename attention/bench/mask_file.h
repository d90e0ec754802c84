#pragma once
// Column masks from a file: HDF5 with int32 datasets out of lts, lte, uts, ute (lts; lts, lte; lts, ute; or all four),
// all of the shape [columns], [heads, columns] or [batch, heads, columns], and the integer attribute causal, 0 or 1.

#include <string>

#include "attention/mask.h"

namespace colonnade {

/// `rows` query rows; 0 takes as many as there are columns. Validated; Exit::data naming the file otherwise.
ColumnMask read_column_mask(const std::string& path, int64_t rows = 0);

}  // namespace colonnade
