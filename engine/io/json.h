#pragma once
// JSON from files that we did not write: size and depth limits, duplicate keys refused, one clear error with the place.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace colonnade {

using Json = nlohmann::ordered_json;

struct JsonLimits {
    size_t bytes = size_t{64} << 20;
    int depth = 64;
};
/// Throws Exit::data: "where: line 3, column 7: invalid JSON: ..."; only the column where the text is a single line,
/// since `where` then names the line itself ("data.jsonl:17").
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

}  // namespace colonnade
