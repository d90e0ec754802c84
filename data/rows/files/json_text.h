#pragma once
// Values as JSON text, for sources of rows that are not JSON.

#include <string>
#include <string_view>

namespace colonnade {

/// Appends a JSON string.
void write_json_text(std::string_view text, std::string& json);
/// Append a number with a point or an exponent, in the shortest text that gives its bits; or NaN, Infinity, -Infinity.
void write_json_real(double value, std::string& json);
void write_json_real(float value, std::string& json);

}  // namespace colonnade
