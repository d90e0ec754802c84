#pragma once
// Column masks from HDF5 files: int32 datasets lts; lts and lte; lts and ute; or lts, lte, uts and ute, all of the same
// shape [columns], [heads, columns] or [batch, heads, columns], and an integer attribute causal, 0 or 1.

#include <string>

#include "attention/mask.h"

namespace colonnade {

/// A valid mask with `rows` query rows; 0 means as many as columns. Throws Exit::data with the file name otherwise.
ColumnMask read_column_mask(const std::string& path, int64_t rows = 0);

}  // namespace colonnade
