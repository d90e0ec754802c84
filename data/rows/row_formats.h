#pragma once
// Row formats (data/rows/rows.h lists them): the keys that identify each, and its reader. The tables are in
// text_formats.cpp, preference_formats.cpp and scored_formats.cpp; a new format is one entry there. detection.cpp knows other spellings of
// their keys.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/rows/row_fields.h"
#include "data/rows/rows.h"

namespace colonnade {

struct RowFormat {
    std::string_view name;
    std::vector<std::string> required;  ///< keys that every row of this format has; detection looks for them
    std::vector<std::string> optional;  ///< further keys that `columns` may rename, those inside a message included
    Row (*read)(const RowFields&);
};

/// The formats of each kind, in the order in which error messages list them.
const std::vector<RowFormat>& row_formats(RowKind kind);
const std::vector<RowFormat>& text_formats();
const std::vector<RowFormat>& preference_formats();
const std::vector<RowFormat>& scored_formats();
const std::vector<RowFormat>& labelled_formats();
const std::vector<RowFormat>& taught_formats();
/// "texts", "preferences", ...
const char* name_of(RowKind kind);
/// "messages {messages}, alpaca {instruction, output}, ..."
std::string known_formats(RowKind kind);

/// Throws Exit::config unless `spec.type` is "auto" or a format of this kind that has every key of `spec.columns`.
void check_row_format(const DatasetSpec& spec, RowKind kind);

/// A row that detection looks at; `where` is "path:line".
struct PlacedRow {
    Json object;
    std::string where;
};

struct DetectedFormat {
    std::string type;
    Columns columns;  ///< those of the data set, and those of the spelling that was found
};

/// Returns the first format, and spelling of its keys, that fits all `rows` (one at least). Unless `spec.type` is
/// "auto", only that format is tried; if no spelling of it fits, its own keys are expected. Throws Exit::data for a row
/// that fits no format, with the keys found and the known formats, and for rows that fit different formats, with the
/// first row of each.
DetectedFormat detect_row_format(RowKind kind, const DatasetSpec& spec, std::span<const PlacedRow> rows);

/// Reads `object` as a row of format `type`. Throws Exit::data with "where: ...", what was found and what was expected.
Row read_row(RowKind kind, const std::string& type, const Json& object, const Columns& columns,
             const std::string& where);

}  // namespace colonnade
