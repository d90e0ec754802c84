#pragma once
// Answers of a row, and the prompt that they follow: what formats of preferences and of scored answers have in common.
// Each answer becomes a row of its own with the prompt in front, so that a prompt and its answer give the same tokens as
// in fine-tuning.

#include <optional>
#include <string>
#include <vector>

#include "data/rows/row_fields.h"
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

Answer read_answer(const RowFields& row, const Json& value, MessageStyle style, std::string name);
Answer read_answer(const RowFields& row, const std::string& key, MessageStyle style);
/// The entries of a list of at least one answer.
std::vector<Answer> read_answers(const RowFields& row, const std::string& key, MessageStyle style);

/// Whether a message may begin an answer.
bool is_answer(const Message& message);
/// A chat that ends with the answer.
Row chat_row(const std::vector<Message>& prompt, const std::vector<Message>& answer);
/// Throws Exit::data unless all answers are strings, or all are messages.
void require_alike(const std::vector<Answer>& answers);
/// Answers to a chat. An answer that is a string becomes an assistant message.
Row after_chat(const std::vector<Message>& prompt, const std::vector<Answer>& answers);
/// Answers to a string. The prompt is plain text if they are strings, a user message if they are messages.
Row after_text(const std::string& prompt, const std::vector<Answer>& answers);
/// Answers to the prompt and the system prompt of the row.
Row after_prompt(const RowFields& row, const std::vector<Answer>& answers);
/// Puts the row's system prompt in front of every answer. Plain text has none: unused_keys() refuses it.
void add_system_to_all(const RowFields& row, Row& result);
/// Gives every answer that is a chat the template's variables of the row.
void add_variables_to_all(const RowFields& row, Row& result, MessageStyle style);

}  // namespace colonnade
