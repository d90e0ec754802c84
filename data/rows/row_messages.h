#pragma once
// Reads the chats of a row: messages in the form of OpenAI and of ShareGPT, and the turns of an Alpaca row.
//
// Tool calls become OpenAI's form, [{"type": "function", "function": {"name", "arguments"}}, ...], wherever a row keeps
// them: in tool_calls, in OpenAI's older function_call, or as the text of a message from function_call (LLaMA-Factory)
// or tool_call (ms-swift). Arguments that are a string of a JSON object become that object: chat templates expect one,
// and servers such as vLLM parse the string before they render.

#include <string>
#include <vector>

#include "data/rows/row_fields.h"

namespace colonnade {

/// Keys of a message: {"role", "content"}, or ShareGPT's {"from", "value"}.
enum class MessageStyle { chat, sharegpt };

/// Reads one message; `where` names its place in errors.
Message read_message(const Json& object, MessageStyle style, const Columns& columns, const std::string& where);
/// Reads a list of at least one message.
std::vector<Message> read_messages(const RowFields& row, const std::string& key, MessageStyle style);
/// The same, with the row's `system` prompt in front. Throws if the messages begin with another system prompt.
std::vector<Message> read_chat_messages(const RowFields& row, const std::string& key, MessageStyle style);
/// Puts the row's `system` prompt, if it has one, in front of its messages.
void add_system(const RowFields& row, std::vector<Message>& messages);
/// Reads all turns of an Alpaca row except the answer: system, history, then instruction and input in one message.
std::vector<Message> read_alpaca_prompt(const RowFields& row);

}  // namespace colonnade
