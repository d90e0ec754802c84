#include "data/rows/row_answers.h"

#include "engine/device/error.h"

namespace colonnade {

Answer read_answer(const RowFields& row, const Json& value, MessageStyle style, std::string name) {
    Answer answer{.place = row.where(), .name = std::move(name), .text = std::nullopt, .messages = {}};
    if (value.is_string()) {
        answer.text = value.get<std::string>();
    } else if (value.is_object()) {
        answer.messages.push_back(read_message(value, style, row.columns(), answer.where()));
    } else if (value.is_array()) {
        if (value.empty()) fail(Exit::data, "{}: the list is empty", answer.where());
        for (size_t i = 0; i < value.size(); ++i)
            answer.messages.push_back(
                read_message(value[i], style, row.columns(), fmt::format("{}[{}]", answer.where(), i)));
    } else {
        fail(Exit::data, "{}: expected a string, a message or a list of messages, found {}", answer.where(),
             value.type_name());
    }
    return answer;
}

Answer read_answer(const RowFields& row, const std::string& key, MessageStyle style) {
    return read_answer(row, row.at(key), style, row.name(key));
}

std::vector<Answer> read_answers(const RowFields& row, const std::string& key) {
    const Json& list = row.filled_list(key);
    std::vector<Answer> answers;
    for (size_t i = 0; i < list.size(); ++i)
        answers.push_back(read_answer(row, list[i], MessageStyle::chat, fmt::format("{}[{}]", row.name(key), i)));
    return answers;
}

void require_alike(const std::vector<Answer>& answers) {
    for (const Answer& answer : answers)
        if (answer.text.has_value() != answers[0].text.has_value())
            fail(Exit::data, "{} is {}, but {} is {}; expected every answer of a row in the same form",
                 answers[0].where(), answers[0].form(), answer.name, answer.form());
}

bool is_answer(const Message& message) {
    return message.role == "assistant" || message.role == "tool";
}

Row chat_row(const std::vector<Message>& prompt, const std::vector<Message>& answer) {
    Row row;
    row.messages = prompt;
    row.messages.insert(row.messages.end(), answer.begin(), answer.end());
    row.prompt_messages = static_cast<int64_t>(prompt.size());
    return row;
}

Row after_chat(const std::vector<Message>& prompt, const std::vector<Answer>& answers) {
    require_alike(answers);
    Row row;
    for (const Answer& answer : answers) {
        if (answer.text) {
            row.answers.push_back(chat_row(prompt, {{"assistant", *answer.text}}));
            continue;
        }
        if (!is_answer(answer.messages[0]))
            fail(Exit::data,
                 "{} begins with a message from role '{}'; expected the answer alone: the prompt has its own key",
                 answer.where(), answer.messages[0].role);
        row.answers.push_back(chat_row(prompt, answer.messages));
    }
    return row;
}

Row after_text(const std::string& prompt, const std::vector<Answer>& answers) {
    require_alike(answers);
    if (!answers[0].text) return after_chat({{"user", prompt}}, answers);
    Row row;
    for (const Answer& answer : answers) {
        Row& each = row.answers.emplace_back();
        each.prompt = prompt;
        each.completion = answer.text;
    }
    return row;
}

void add_system_to_all(const RowFields& row, Row& result) {
    for (Row& answer : result.answers) {
        const auto before = static_cast<int64_t>(answer.messages.size());
        add_system(row, answer.messages);
        answer.prompt_messages += static_cast<int64_t>(answer.messages.size()) - before;
    }
}

Row after_prompt(const RowFields& row, const std::vector<Answer>& answers) {
    const Answer prompt = read_answer(row, "prompt", MessageStyle::chat);
    Row result = prompt.text ? after_text(*prompt.text, answers) : after_chat(prompt.messages, answers);
    if (!result.answers[0].messages.empty()) add_system_to_all(row, result);
    return result;
}

}  // namespace colonnade
