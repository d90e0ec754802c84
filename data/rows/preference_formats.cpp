// Formats of preference rows. Each becomes a Row whose answers are rows of their own with the prompt in front, so that
// a prompt and its answer give the same tokens as in fine-tuning.

#include <algorithm>

#include "data/rows/row_answers.h"
#include "data/rows/row_formats.h"
#include "data/rows/row_pairs.h"
#include "data/rows/token_rows.h"
#include "data/rows/turn_rows.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

bool same(const Message& a, const Message& b) {
    return a.role == b.role && a.content == b.content && a.more == b.more;
}

/// Whether `answer` begins with the messages of `prompt` and has more.
bool continues(const Answer& answer, const std::vector<Message>& prompt) {
    return answer.messages.size() > prompt.size() &&
           std::equal(prompt.begin(), prompt.end(), answer.messages.begin(), same);
}

/// A string that is none of the messages of `chat`. Nothing of it is used then, so it is not marked as read.
bool is_other_text(const RowFields& row, const std::string& key, const Answer& chat) {
    const auto text = row.object().find(row.name(key));
    return text != row.object().end() && text->is_string() &&
           std::ranges::none_of(chat.messages, [&](const Message& m) { return *text == m.content; });
}

/// Whole conversations: the prompt is their common beginning, which leaves at least one message to each.
Row whole_chats(const Answer& chosen, const Answer& rejected) {
    const size_t limit = std::min(chosen.messages.size(), rejected.messages.size()) - 1;
    size_t alike = 0;
    while (alike < limit && same(chosen.messages[alike], rejected.messages[alike])) ++alike;
    Row row;
    for (const Answer* answer : {&chosen, &rejected}) {
        Row& each = row.answers.emplace_back(chat_row(answer->messages, {}));
        each.prompt_messages = static_cast<int64_t>(alike);
    }
    return row;
}

Row whole_texts(const std::string& chosen, const std::string& rejected) {
    Row row;
    row.whole_answers = true;
    for (const std::string& text : {chosen, rejected}) row.answers.emplace_back().completion = text;
    return row;
}

std::vector<Answer> read_pair(const RowFields& row, MessageStyle style) {
    std::vector<Answer> pair = {read_answer(row, "chosen", style), read_answer(row, "rejected", style)};
    require_alike(pair);
    return pair;
}

Row read_preference(const RowFields& row) {
    const std::vector<Answer> pair = read_pair(row, MessageStyle::chat);
    const auto join = [&] {
        const bool conversations = !pair[0].text && !is_answer(pair[0].messages[0]);
        // Some data sets repeat the prompt beside whole conversations; UltraFeedback repeats the question.
        if (conversations && is_other_text(row, "prompt", pair[0])) return whole_chats(pair[0], pair[1]);
        if (row.find("prompt")) {
            const Answer prompt = read_answer(row, "prompt", MessageStyle::chat);
            const bool repeated =
                conversations &&
                (prompt.text || (continues(pair[0], prompt.messages) && continues(pair[1], prompt.messages)));
            if (!repeated) return prompt.text ? after_text(*prompt.text, pair) : after_chat(prompt.messages, pair);
        }
        if (pair[0].text) return whole_texts(*pair[0].text, *pair[1].text);
        if (!conversations)
            fail(Exit::data,
                 "{} begins with a message from role '{}', and the row has no key '{}'; found keys: {}; expected a "
                 "prompt, or whole conversations",
                 pair[0].where(), pair[0].messages[0].role, row.name("prompt"), found_keys(row.object()));
        return whole_chats(pair[0], pair[1]);
    };
    Row result = join();
    // UltraFeedback keeps the chosen conversation once more, for fine-tuning.
    const auto copy = row.object().find("messages");
    if (copy != row.object().end() && *copy == row.at("chosen")) (void)row.find("messages");
    if (!result.answers[0].messages.empty()) add_system_to_all(row, result);
    return with_settings(row, std::move(result), MessageStyle::chat);
}

Row read_chat_pair(const RowFields& row) {
    const std::vector<Message> prompt = read_chat_messages(row, "messages", MessageStyle::chat);
    if (prompt.back().role == "assistant")
        fail(Exit::data,
             "{}: ends with an answer of the assistant; expected the prompt alone; type preference reads rows whose "
             "'{}' is a whole conversation",
             row.place("messages"), row.name("messages"));
    return with_settings(row, after_chat(prompt, read_pair(row, MessageStyle::chat)), MessageStyle::chat);
}

Row read_sharegpt_pair(const RowFields& row) {
    return with_settings(row,
                         after_chat(read_chat_messages(row, "conversations", MessageStyle::sharegpt),
                                    read_pair(row, MessageStyle::sharegpt)),
                         MessageStyle::sharegpt);
}

Row read_alpaca_pair(const RowFields& row) {
    for (const char* key : {"chosen", "rejected"}) (void)row.text(key);
    return with_settings(row, after_chat(read_alpaca_prompt(row), read_pair(row, MessageStyle::chat)),
                         MessageStyle::chat);
}

Row read_token_preference(const RowFields& row) {
    return with_settings(row, read_token_pair(row), MessageStyle::chat);
}

/// Numbers beside a ranking say nothing new, or that it is none.
void require_best_first(const RowFields& row, const std::string& key, size_t answers) {
    const auto list = row.object().find(key);
    if (list == row.object().end() || !list->is_array() || list->size() != answers) return;
    for (size_t i = 1; i < answers; ++i) {
        const Json &before = (*list)[i - 1], &score = (*list)[i];
        if (before.is_number() && score.is_number() && before.get<double>() < score.get<double>())
            fail(Exit::data,
                 "{}: '{}' is a ranking, the best answer first, but {}[{}] is {} and {}[{}] is {}; sort the answers, "
                 "or name the pairs in '{}', or learn the best ones with stage sft and keep in the data set",
                 row.where(), row.name("completions"), key, i - 1, shown(before), key, i, shown(score),
                 row.name("pairs"));
    }
}

Row read_ranked(const RowFields& row) {
    if (row.find("labels"))
        fail(Exit::data,
             "{}: '{}' with '{}' is stepwise supervision, which is not supported; a ranking lists its answers in "
             "'{}', the best one first",
             row.where(), row.name("completions"), row.name("labels"), row.name("completions"));
    if (row.find("margin"))
        fail(Exit::data, "{}: key '{}': a ranking has no margin; each of its '{}' may have one", row.where(),
             row.name("margin"), row.name("pairs"));
    const std::vector<Answer> answers = read_answers(row, "completions");
    if (answers.size() < 2)
        fail(Exit::data, "{}: key '{}': expected at least two answers to compare, found one", row.where(),
             row.name("completions"));
    Row result = after_prompt(row, answers);
    if (row.find("pairs")) {
        result.pairs = read_row_pairs(row, result.answers.size());
        keep_compared(result);
    } else {
        for (const char* key : {"scores", "rewards"}) require_best_first(row, key, answers.size());
    }
    return with_settings(row, std::move(result), MessageStyle::chat);
}

}  // namespace

const std::vector<RowFormat>& preference_formats() {
    static const std::vector<RowFormat> formats = {
        {"tokens", {"chosen_input_ids", "rejected_input_ids"}, pair_token_keys(), read_token_preference},
        {"messages",
         {"messages", "chosen", "rejected"},
         {"system", "role", "content", "train", "weight", "margin"},
         read_chat_pair},
        {"sharegpt",
         {"conversations", "chosen", "rejected"},
         {"system", "from", "value", "train", "weight", "margin"},
         read_sharegpt_pair},
        {"alpaca",
         {"instruction", "chosen", "rejected"},
         {"input", "context", "system", "history", "weight", "margin"},
         read_alpaca_pair},
        {"preference",
         {"chosen", "rejected"},
         {"prompt", "system", "role", "content", "train", "weight", "margin"},
         read_preference},
        {"turns", {"messages"}, {"system", "role", "content", "train", "weight", "margin", "rejected"}, read_turns},
        {"steps",
         {"prompt", "initial_reason_steps", "chosen", "rejected"},
         {"system", "role", "content", "weight", "margin"},
         read_steps},
        {"ranked", {"prompt", "completions"}, {"system", "role", "content", "train", "weight", "pairs"}, read_ranked},
    };
    return formats;
}

}  // namespace colonnade
