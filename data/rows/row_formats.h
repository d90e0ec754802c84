#pragma once
// Row formats of JSONL (data/rows/rows.h lists them): the keys that identify each, and its reader. The tables are in
// text_formats.cpp and preference_formats.cpp; a new format is one entry there.

#include <string>
#include <string_view>
#include <vector>

#include "data/rows/row_fields.h"
#include "data/rows/rows.h"

namespace colonnade {

struct RowFormat {
    std::string_view name;
    std::vector<std::string> required;  ///< keys that every row of this format has; detection looks for them
    std::vector<std::string> optional;  ///< further keys, those inside a message included
    Row (*read)(const RowFields&);
};

/// The formats of each kind, in the order in which detection tries them.
const std::vector<RowFormat>& text_formats();
const std::vector<RowFormat>& preference_formats();

/// Throws Exit::config unless `spec.type` is "auto" or a format of this kind that has every key of `spec.columns`.
void check_row_format(const DatasetSpec& spec, RowKind kind);

/// Returns the first format whose required keys `object` has. If there is none, throws Exit::data with the keys found
/// and the known formats.
std::string detect_row_format(RowKind kind, const Json& object, const Columns& columns, const std::string& where);

/// Reads `object` as a row of format `type`. Throws Exit::data with "where: ...", what was found and what was expected.
Row read_row(RowKind kind, const std::string& type, const Json& object, const Columns& columns,
             const std::string& where);

}  // namespace colonnade
