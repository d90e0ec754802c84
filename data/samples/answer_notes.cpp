#include "data/samples/answer_notes.h"

#include <algorithm>
#include <string_view>

namespace colonnade {
namespace {

bool is_blank(std::string_view text) {
    return text.find_first_not_of(" \t\r\n\f\v") == text.npos;
}

bool is_reply(const Message& message) {
    return message.role == "assistant";
}

bool says_nothing(const Message& message) {
    return is_blank(message.content) && !message.more.contains("tool_calls");
}

}  // namespace

RowNotes answer_notes(const Row& row) {
    RowNotes notes;
    if (row.completion) {
        notes.add_if(is_blank(*row.completion), RowNote::empty_answer);
        notes.add_if(row.prompt && is_blank(*row.prompt), RowNote::no_prompt);
    }
    if (row.messages.empty()) return notes;
    const auto& messages = row.messages;
    const auto answers = messages.begin() + row.prompt_messages;
    notes.add_if(std::any_of(answers, messages.end(),
                             [](const Message& m) { return is_reply(m) && m.weight != 0.0f && says_nothing(m); }),
                 RowNote::empty_answer);
    const auto first = std::ranges::find_if(messages, is_reply);
    notes.add_if(first != messages.end() && std::all_of(messages.begin(), first, says_nothing), RowNote::no_prompt);
    notes.add_if(!is_reply(messages.back()), RowNote::unanswered);
    return notes;
}

}  // namespace colonnade
