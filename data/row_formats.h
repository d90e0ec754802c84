#pragma once
// The conventions of JSONL rows (data/rows.h lists them): which keys tell one from another, and how each becomes a Row.

#include <map>
#include <string>

#include "data/rows.h"
#include "engine/json.h"

namespace colonnade {

using Columns = std::map<std::string, std::string>;

/// Exit::config unless `type` is a convention or "auto" and every key of `columns` is one that it knows.
void check_row_format(const DatasetSpec& spec);

/// The convention whose telling keys `object` has. Exit::data, listing the keys found and the conventions known, if
/// none.
std::string detect_row_format(const Json& object, const Columns& columns, const std::string& where);

/// The Row that `object` is under convention `type`. Exit::data with "where: ..." and what was found and expected.
Row read_row(const std::string& type, const Json& object, const Columns& columns, const std::string& where);

}  // namespace colonnade
