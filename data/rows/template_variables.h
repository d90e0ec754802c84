#pragma once
// Variables of the chat template that stand beside the messages of a row: tools, documents, enable_thinking, ...

#include "data/rows/row_messages.h"

namespace colonnade {

/// Reads the variables; null if the row has none. Lists and objects may be strings of JSON. An empty value counts as
/// absent. OpenAI's older `functions`, and ShareGPT's tools, may be bare: {"name", "parameters"} becomes {"type":
/// "function", "function": ...}. The entries of chat_template_kwargs are variables of any name.
Json read_variables(const RowFields& row, MessageStyle style);

}  // namespace colonnade
