#pragma once
// JSON from files of unknown origin: limits on size and depth, no duplicate keys, and one clear error with the
// position.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/io/limits.h"

namespace colonnade {

using Json = nlohmann::ordered_json;

/// NaN, Infinity and -Infinity are no JSON, but Python's json module writes them. `read` makes numbers of them.
enum class NonFinite { refuse, read };

struct JsonLimits {
    size_t bytes = limits::json_bytes;
    int depth = limits::json_depth;
    NonFinite non_finite = NonFinite::refuse;
};
/// Throws Exit::data: "where: line 3, column 7: invalid JSON: ...". If the text is a single line only the column is
/// given, since `where` then names the line ("data.jsonl:17").
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

/// Of a record that another program may have written: empty, or 0, if `key` is missing or of another type.
std::string text_in(const Json& object, const char* key);
int64_t number_in(const Json& object, const char* key);

}  // namespace colonnade
