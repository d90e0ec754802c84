// Formats of text rows: chats, prompts with a completion, plain text.

#include <cmath>

#include "data/rows/row_answers.h"
#include "data/rows/row_formats.h"
#include "data/rows/template_variables.h"
#include "data/rows/token_rows.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

Row read_chat(const RowFields& row) {
    Row result;
    result.messages = read_chat_messages(row, "messages", MessageStyle::chat);
    result.variables = read_variables(row, MessageStyle::chat);
    return result;
}

Row read_sharegpt(const RowFields& row) {
    Row result;
    result.messages = read_chat_messages(row, "conversations", MessageStyle::sharegpt);
    result.variables = read_variables(row, MessageStyle::sharegpt);
    return result;
}

Row read_alpaca(const RowFields& row) {
    Row result;
    result.messages = read_alpaca_prompt(row);
    result.messages.push_back({"assistant", row.text("output")});
    result.variables = read_variables(row, MessageStyle::chat);
    return result;
}

Row read_prompt_completion(const RowFields& row) {
    Row result;
    const Json &prompt = row.at("prompt"), &completion = row.at("completion");
    if (prompt.is_string() && completion.is_string()) {
        result.prompt = prompt.get<std::string>();
        result.completion = completion.get<std::string>();
        return result;
    }
    if (!prompt.is_array() || !completion.is_array())
        fail(Exit::data, "{}: keys '{}' and '{}': expected two strings or two message lists, found {} and {}",
             row.where(), row.name("prompt"), row.name("completion"), prompt.type_name(), completion.type_name());
    result.messages = read_chat_messages(row, "prompt", MessageStyle::chat);
    result.prompt_messages = static_cast<int64_t>(result.messages.size());
    const std::vector<Message> completion_messages = read_messages(row, "completion", MessageStyle::chat);
    result.messages.insert(result.messages.end(), completion_messages.begin(), completion_messages.end());
    result.variables = read_variables(row, MessageStyle::chat);
    return result;
}

/// Several answers to a prompt, of which `keep` chooses.
Row read_scored(const RowFields& row) {
    const std::vector<Answer> answers = read_answers(row, "completions");
    const Json& scores = row.list("scores");
    if (scores.size() != answers.size())
        fail(Exit::data, "{}: {} numbers for {} answers in '{}'; expected one for each", row.place("scores"),
             scores.size(), answers.size(), row.name("completions"));
    Row result = after_prompt(row, answers);
    for (size_t i = 0; i < scores.size(); ++i) {
        const bool is_score = scores[i].is_number() && std::isfinite(scores[i].get<double>());
        if (!is_score && !scores[i].is_null())
            fail(Exit::data, "{}: {}[{}]: expected a number, or null for an answer without a score, found {}",
                 row.where(), row.name("scores"), i, shown(scores[i]));
        result.scores.push_back(is_score ? scores[i].get<double>() : std::nan(""));
    }
    if (result.answers[0].messages.empty()) return result;
    const Json variables = read_variables(row, MessageStyle::chat);
    for (Row& answer : result.answers) answer.variables = variables;
    return result;
}

Row read_text(const RowFields& row) {
    Row result;
    result.completion = row.text("text");
    return result;
}

}  // namespace

/// Chats come before plain texts: a row with a chat and a plain copy of its text is read as a chat.
const std::vector<RowFormat>& text_formats() {
    static const std::vector<RowFormat> formats = {
        {"tokens", {"input_ids"}, text_token_keys(), read_tokens},
        {"messages", {"messages"}, {"system", "role", "content", "train", "weight"}, read_chat},
        {"sharegpt", {"conversations"}, {"system", "from", "value", "train", "weight"}, read_sharegpt},
        {"alpaca", {"instruction", "output"}, {"input", "context", "system", "history", "weight"}, read_alpaca},
        {"prompt_completion",
         {"prompt", "completion"},
         {"system", "role", "content", "train", "weight"},
         read_prompt_completion},
        {"scored", {"prompt", "completions", "scores"}, {"system", "role", "content", "train", "weight"}, read_scored},
        {"text", {"text"}, {"weight"}, read_text},
    };
    return formats;
}

}  // namespace colonnade
