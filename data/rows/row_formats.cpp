#include "data/rows/row_formats.h"

#include <algorithm>

#include "engine/device/error.h"

namespace colonnade {
namespace {

const std::vector<RowFormat>& formats_of(RowKind kind) {
    return kind == RowKind::texts ? text_formats() : preference_formats();
}

std::string known_formats(RowKind kind) {
    std::string known;
    for (const RowFormat& format : formats_of(kind))
        known += fmt::format("{}{} {{{}}}", known.empty() ? "" : ", ", format.name, fmt::join(format.required, ", "));
    return known;
}

/// The first format whose required keys all exist; null if there is none.
const RowFormat* matching_format(RowKind kind, const RowFields& fields) {
    for (const RowFormat& format : formats_of(kind))
        if (std::ranges::all_of(format.required, [&](const auto& key) { return fields.find(key); })) return &format;
    return nullptr;
}

/// " of preferences": the user may not know that stages dpo and rm expect them.
const char* rows_of(RowKind kind) {
    return kind == RowKind::texts ? "" : " of preferences";
}

}  // namespace

void check_row_format(const DatasetSpec& spec, RowKind kind) {
    std::vector<std::string> names;
    bool known = spec.type == "auto";
    for (const RowFormat& format : formats_of(kind)) {
        if (spec.type != "auto" && spec.type != format.name) continue;
        known = true;
        names.insert(names.end(), format.required.begin(), format.required.end());
        names.insert(names.end(), format.optional.begin(), format.optional.end());
    }
    if (!known)
        fail(Exit::config, "{}: unknown type '{}'; expected{} auto, {}", spec.path, spec.type,
             kind == RowKind::texts ? "" : " a type of preferences:", known_formats(kind));
    for (const auto& [ours, theirs] : spec.columns)
        if (std::find(names.begin(), names.end(), ours) == names.end())
            fail(Exit::config, "{}: columns: type {} has no key '{}' to read from '{}'", spec.path, spec.type, ours,
                 theirs);
}

std::string detect_row_format(RowKind kind, const Json& object, const Columns& columns, const std::string& where) {
    const RowFields fields(object, columns, where);
    if (const RowFormat* format = matching_format(kind, fields)) return std::string(format->name);
    const bool texts = kind == RowKind::texts;
    const char* other = !matching_format(texts ? RowKind::preferences : RowKind::texts, fields) ? ""
                        : texts ? "; rows with answers to compare need stage dpo or rm"
                                : "; rows without answers to compare need stage pt or sft";
    fail(Exit::data,
         "{}: cannot detect the format of this row{}; found keys: {}; expected {}; set type to the format, or rename "
         "keys with columns{}",
         where, rows_of(kind), found_keys(object), known_formats(kind), other);
}

Row read_row(RowKind kind, const std::string& type, const Json& object, const Columns& columns,
             const std::string& where) {
    for (const RowFormat& format : formats_of(kind))
        if (format.name == type) return format.read(RowFields(object, columns, where));
    fail(Exit::internal, "no reader for rows{} of type '{}'", rows_of(kind), type);
}

}  // namespace colonnade
