// Formats of preference rows. Each becomes a Row whose answers are rows of their own (data/rows/row_answers.h).

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "data/rows/row_answers.h"
#include "data/rows/row_formats.h"
#include "data/rows/token_rows.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

float read_margin(const RowFields& row) {
    const Json* margin = row.find("margin");
    if (!margin) return 0;
    if (!margin->is_number()) row.mistyped("margin", "a number");
    const double value = margin->get<double>();
    if (!(std::abs(value) <= std::numeric_limits<float>::max()))
        fail(Exit::data, "{}: key '{}': expected a number in the range of float32, found {}", row.where(),
             row.name("margin"), shown(*margin));
    return static_cast<float>(value);
}

int32_t read_answer_number(const Json& value, size_t answers, const std::string& where) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= answers)
        fail(Exit::data, "{}: expected the number of an answer, 0 to {}, found {}", where, answers - 1, shown(value));
    return value.get<int32_t>();
}

/// [better, worse], or an object with these and more.
RowPair read_row_pair(const Json& value, size_t answers, const std::string& where) {
    static const Columns own_names;
    if (value.is_array() && value.size() == 2)
        return {read_answer_number(value[0], answers, where + "[0]"),
                read_answer_number(value[1], answers, where + "[1]")};
    if (!value.is_object())
        fail(Exit::data, "{}: expected [better, worse] or an object with these keys, found {}", where, shown(value));
    const RowFields fields(value, own_names, where);
    RowPair pair{read_answer_number(fields.at("better"), answers, fields.place("better")),
                 read_answer_number(fields.at("worse"), answers, fields.place("worse")), read_margin(fields)};
    if (fields.find("weight")) pair.weight = fields.weight("weight");
    for (const auto& [key, unread] : fields.unread())
        fail(Exit::data, "{}: key '{}' of a pair is unknown; expected better, worse, margin, weight", where,
             shown_key(key));
    return pair;
}

/// No two of the pairs compare the same answers.
std::vector<RowPair> read_row_pairs(const RowFields& row, size_t answers) {
    const Json& list = row.filled_list("pairs");
    std::vector<RowPair> pairs;
    std::map<std::pair<int32_t, int32_t>, size_t> seen;
    for (size_t i = 0; i < list.size(); ++i) {
        const std::string where = fmt::format("{}: {}[{}]", row.where(), row.name("pairs"), i);
        const RowPair pair = pairs.emplace_back(read_row_pair(list[i], answers, where));
        if (pair.better == pair.worse)
            fail(Exit::data, "{}: answer {} is compared with itself; expected two answers", where, pair.better);
        const auto [first, is_new] = seen.emplace(std::minmax(pair.better, pair.worse), i);
        if (!is_new)
            fail(Exit::data, "{}: answers {} and {} are compared in {}[{}] already; expected one pair of them", where,
                 pair.better, pair.worse, row.name("pairs"), first->second);
    }
    return pairs;
}

/// Leaves out the answers that no pair has.
void keep_compared(Row& row) {
    std::vector<int32_t> numbers(row.answers.size(), -1);
    for (const RowPair& pair : row.pairs)
        for (const int32_t answer : {pair.better, pair.worse}) numbers[static_cast<size_t>(answer)] = 0;
    std::vector<Row> compared;
    for (size_t i = 0; i < numbers.size(); ++i)
        if (numbers[i] == 0) {
            numbers[i] = static_cast<int32_t>(compared.size());
            compared.push_back(std::move(row.answers[i]));
        }
    row.answers = std::move(compared);
    for (RowPair& pair : row.pairs)
        for (int32_t* answer : {&pair.better, &pair.worse}) *answer = numbers[static_cast<size_t>(*answer)];
}

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

void require_switches(const RowFields& row, const Row& result) {
    for (size_t a = 0; a < result.answers.size(); ++a)
        for (size_t i = 0; i < result.answers[a].messages.size(); ++i)
            if (const float weight = result.answers[a].messages[i].weight.value_or(1); weight != 0 && weight != 1)
                fail(Exit::data,
                     "{}: message {} of the prompt with answer {} has weight {}; expected 0 or 1: answers are compared "
                     "as a whole, and weight of the row is that of the comparison",
                     row.where(), i, a, weight);
}

/// What stands beside the answers of a pair: the margin, and for chats the variables of the template.
Row with_settings(const RowFields& row, Row result, MessageStyle style) {
    result.margin = read_margin(row);
    require_switches(row, result);
    add_variables_to_all(row, result, style);
    return result;
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

Row read_ranked(const RowFields& row) {
    if (row.find("labels"))
        fail(Exit::data,
             "{}: '{}' with '{}' is stepwise supervision, which is not supported; a ranking lists its answers in "
             "'{}', the best one first",
             row.where(), row.name("completions"), row.name("labels"), row.name("completions"));
    if (row.find("margin"))
        fail(Exit::data, "{}: key '{}': a ranking has no margin; each of its '{}' may have one", row.where(),
             row.name("margin"), row.name("pairs"));
    const std::vector<Answer> answers = read_answers(row, "completions", MessageStyle::chat);
    if (answers.size() < 2)
        fail(Exit::data, "{}: key '{}': expected at least two answers to compare, found one", row.where(),
             row.name("completions"));
    Row result = after_prompt(row, answers);
    if (row.find("pairs")) {
        result.pairs = read_row_pairs(row, result.answers.size());
        keep_compared(result);
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
        {"ranked", {"prompt", "completions"}, {"system", "role", "content", "train", "weight", "pairs"}, read_ranked},
    };
    return formats;
}

}  // namespace colonnade
