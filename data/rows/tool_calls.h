#pragma once
// Tool calls of a message (data/rows/row_messages.h says which forms there are).

#include <string>

#include "data/rows/row_fields.h"

namespace colonnade {

/// {"type": "function", "function": function}
Json openai_function(Json function);
/// Reads tool_calls, or OpenAI's older function_call; null if the message has none.
Json read_tool_calls(const RowFields& message);
/// Reads a message whose text is the JSON of a call, {"name", "arguments"}, or of a list of calls.
Json tool_calls_of_text(const RowFields& message, const std::string& content_key);

}  // namespace colonnade
