#pragma once
// HTML and SVG as text.

#include <string>
#include <string_view>
#include <vector>

#include "engine/io/json.h"

namespace colonnade {

/// Text as content or as a quoted attribute: & < > " ' are escaped, bytes that are not UTF-8 and control characters
/// other than line breaks and tabs become U+FFFD.
std::string escaped(std::string_view text);

/// JSON within a <script> element, which no text of it can end.
std::string script_json(const Json& json);

/// A table; all texts are escaped. Columns from `numbers` on are aligned to the right.
std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows,
                       size_t numbers = std::string::npos);
/// The same with cells that are HTML already; the head is escaped.
std::string html_table_of_markup(const std::vector<std::string>& head,
                                 const std::vector<std::vector<std::string>>& rows, size_t numbers = std::string::npos);

/// Six significant digits: "2.31", "2e-05", "1234567" for a whole number.
std::string number_text(double value);

}  // namespace colonnade
