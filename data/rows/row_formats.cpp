#include "data/rows/row_formats.h"

#include <algorithm>

#include "data/rows/unused_keys.h"
#include "engine/device/error.h"

namespace colonnade {

const std::vector<RowFormat>& row_formats(RowKind kind) {
    switch (kind) {
        case RowKind::preferences:
            return preference_formats();
        case RowKind::scored:
            return scored_formats();
        case RowKind::labelled:
            return labelled_formats();
        case RowKind::taught:
            return taught_formats();
        case RowKind::texts:
            break;
    }
    return text_formats();
}

const char* name_of(RowKind kind) {
    switch (kind) {
        case RowKind::preferences:
            return "preferences";
        case RowKind::scored:
            return "scored answers";
        case RowKind::labelled:
            return "labelled answers";
        case RowKind::taught:
            return "texts with lists of a teacher";
        case RowKind::texts:
            break;
    }
    return "texts";
}

std::string known_formats(RowKind kind) {
    std::string known;
    for (const RowFormat& format : row_formats(kind))
        known += fmt::format("{}{} {{{}}}", known.empty() ? "" : ", ", format.name, fmt::join(format.required, ", "));
    return known;
}

void check_row_format(const DatasetSpec& spec, RowKind kind) {
    std::vector<std::string> names;
    bool known = spec.type == "auto";
    for (const RowFormat& format : row_formats(kind)) {
        if (spec.type != "auto" && spec.type != format.name) continue;
        known = true;
        names.insert(names.end(), format.required.begin(), format.required.end());
        names.insert(names.end(), format.optional.begin(), format.optional.end());
    }
    if (!known)
        fail(Exit::config, "{}: unknown type '{}'; expected{} auto, {}", spec.path, spec.type,
             kind == RowKind::texts ? "" : fmt::format(" a type of {}:", name_of(kind)), known_formats(kind));
    for (const auto& [ours, theirs] : spec.columns)
        if (std::find(names.begin(), names.end(), ours) == names.end())
            fail(Exit::config, "{}: columns: type {} has no key '{}' to read from '{}'", spec.path, spec.type, ours,
                 theirs);
}

Row read_row(RowKind kind, const std::string& type, const Json& object, const Columns& columns,
             const std::string& where) {
    for (const RowFormat& format : row_formats(kind)) {
        if (format.name != type) continue;
        const RowFields fields(object, columns, where);
        Row row = format.read(fields);
        const bool weighs = kind != RowKind::scored && kind != RowKind::labelled;
        if (weighs && fields.find("weight")) row.weight = fields.weight("weight");
        if (kind == RowKind::taught) row.answers.front().weight = row.weight;
        row.unused = unused_keys(fields);
        return row;
    }
    fail(Exit::internal, "no reader for rows of type '{}'", type);
}

}  // namespace colonnade
