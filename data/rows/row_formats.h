#pragma once
// The conventions of JSONL rows (data/rows/rows.h lists them): which keys tell one from another, and how each becomes a Row.
// Those of texts are in row_formats.cpp, those of preferences in preference_formats.cpp.

#include <string>

#include "data/rows/rows.h"
#include "engine/io/json.h"

namespace colonnade {

/// Exit::config unless `type` is a convention of that kind or "auto" and every key of `columns` is one that it knows.
void check_row_format(const DatasetSpec& spec, RowKind kind);

/// The convention whose telling keys `object` has. Exit::data, listing the keys found and the conventions known, if
/// none.
std::string detect_row_format(RowKind kind, const Json& object, const Columns& columns, const std::string& where);

/// The Row that `object` is under convention `type`. Exit::data with "where: ..." and what was found and expected.
Row read_row(RowKind kind, const std::string& type, const Json& object, const Columns& columns,
             const std::string& where);

}  // namespace colonnade
