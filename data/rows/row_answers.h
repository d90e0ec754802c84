#pragma once
// Answers of a row to one prompt, whether they are compared or some of them are learned. Each becomes a row of its own,
// with the prompt in front.

#include <optional>
#include <string>
#include <vector>

#include "data/rows/row_messages.h"

namespace colonnade {

/// An answer as the row writes it; prompts have the same forms.
struct Answer {
    std::string place, name;          ///< "path:line" of the row; the row's key
    std::optional<std::string> text;  ///< a string
    std::vector<Message> messages;    ///< one message or a list of them

    std::string where() const { return place + ": " + name; }
    const char* form() const { return text ? "a string" : "messages"; }
};

/// `name`: of the value, for errors.
Answer read_answer(const RowFields& row, const Json& value, MessageStyle style, std::string name);
Answer read_answer(const RowFields& row, const std::string& key, MessageStyle style);
/// Reads the list of answers under `key`, at least one.
std::vector<Answer> read_answers(const RowFields& row, const std::string& key);

/// Throws unless all are strings, or all are messages.
void require_alike(const std::vector<Answer>& answers);
/// Whether the message may begin an answer.
bool is_answer(const Message& message);

Row chat_row(const std::vector<Message>& prompt, const std::vector<Message>& answer);
/// Answers to a chat. An answer that is a string becomes an assistant message.
Row after_chat(const std::vector<Message>& prompt, const std::vector<Answer>& answers);
/// Answers to a string. The prompt is plain text if they are strings, a user message if they are messages.
Row after_text(const std::string& prompt, const std::vector<Answer>& answers);
/// Answers to the row's prompt, a string or messages, with its system prompt in front.
Row after_prompt(const RowFields& row, const std::vector<Answer>& answers);
/// Puts the row's system prompt in front of every answer. Plain text has none: unused_keys() refuses it.
void add_system_to_all(const RowFields& row, Row& result);

}  // namespace colonnade
