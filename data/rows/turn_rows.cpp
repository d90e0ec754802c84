#include "data/rows/turn_rows.h"

#include <algorithm>

#include "data/rows/row_answers.h"
#include "data/rows/row_pairs.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr size_t most_bytes = size_t{128} << 20;  ///< of all turns, each with what stands before it
constexpr size_t message_bytes = 512;             ///< what a message takes beside its text

/// The messages are of ShareGPT's form if the first has its keys alone.
MessageStyle style_of(const RowFields& row) {
    const Json& first = row.filled_list("messages")[0];
    const bool sharegpt = first.is_object() && !first.contains(row.name("role")) && first.contains(row.name("from"));
    return sharegpt ? MessageStyle::sharegpt : MessageStyle::chat;
}

/// A string, a message of the assistant, or a list of these.
std::vector<Message> read_rejected(const RowFields& row, const Json& value, MessageStyle style,
                                   const std::string& where) {
    std::vector<Message> messages;
    const auto read_one = [&](const Json& one, const std::string& place) {
        if (one.is_string()) {
            messages.push_back({"assistant", one.get<std::string>()});
        } else if (one.is_object()) {
            messages.push_back(read_message(one, style, row.columns(), place));
            if (messages.back().role != "assistant")
                fail(Exit::data, "{}: found a message from role '{}', expected one of the assistant", place,
                     messages.back().role);
        } else {
            fail(Exit::data, "{}: expected a string or a message, found {}", place, one.type_name());
        }
    };
    if (!value.is_array()) {
        read_one(value, where);
        return messages;
    }
    for (size_t i = 0; i < value.size(); ++i) read_one(value[i], fmt::format("{}[{}]", where, i));
    return messages;
}

/// Takes the rejected answers out of a message.
std::vector<Message> take_rejected(const RowFields& row, Message& message, MessageStyle style,
                                   const std::string& where) {
    const std::string key = row.name("rejected");
    if (!message.more.is_object() || !message.more.contains(key)) return {};
    const Json value = std::move(message.more[key]);
    message.more.erase(key);
    if (message.more.empty()) message.more = Json();
    if (message.role != "assistant")
        fail(Exit::data, "{}: key '{}' of a message from role '{}'; expected it in messages of the assistant alone",
             where, key, message.role);
    return read_rejected(row, value, style, fmt::format("{}: {}", where, key));
}

/// Adds the answers of one turn, which the messages before it ask for.
void add_turn(Row& row, const std::vector<Message>& before, const Message& chosen,
              const std::vector<Message>& rejected) {
    const auto first = static_cast<int32_t>(row.answers.size()), better = first + static_cast<int32_t>(rejected.size());
    const float weight = chosen.weight.value_or(1);
    for (int32_t worse = first; worse < better; ++worse) row.pairs.push_back({better, worse, 0, weight});
    for (const Message& answer : rejected) row.answers.push_back(chat_row(before, {answer}));
    row.answers.push_back(chat_row(before, {chosen}));
    row.answers.back().messages.back().weight.reset();
}

}  // namespace

bool has_rejected(const Json& messages, const std::string& name) {
    return messages.is_array() && std::ranges::any_of(messages, [&](const Json& message) {
               return message.is_object() && message.contains(name) && !message[name].is_null();
           });
}

Row read_turns(const RowFields& row) {
    const MessageStyle style = style_of(row);
    std::vector<Message> messages = read_chat_messages(row, "messages", style);
    const size_t system = messages.size() - row.list("messages").size();
    Row result;
    result.multi_turn = true;
    std::vector<Message> before;
    size_t bytes = 0, all = 0;
    for (size_t i = 0; i < messages.size(); ++i) {
        Message& message = messages[i];
        const std::string where =
            i < system ? row.where() : fmt::format("{}: {}[{}]", row.where(), row.name("messages"), i - system);
        const std::vector<Message> rejected = take_rejected(row, message, style, where);
        all += (rejected.size() + 1) * bytes * (rejected.empty() ? 0 : 1);
        if (all > most_bytes)
            fail(Exit::data,
                 "{}: the turns up to here, each with the messages before it, have more than {} MiB; expected fewer: "
                 "divide the chat",
                 where, most_bytes >> 20);
        if (!rejected.empty()) add_turn(result, before, message, rejected);
        bytes += message.content.size() + (message.more.is_null() ? 0 : message.more.dump().size()) + message_bytes;
        message.weight.reset();  // says nothing about the turns behind it
        before.push_back(std::move(message));
    }
    result = with_settings(row, std::move(result), style);
    for (RowPair& pair : result.pairs) pair.margin = result.margin;
    return result;
}

Row read_steps(const RowFields& row) {
    const std::string given = row.text("initial_reason_steps");
    const Answer prompt = read_answer(row, "prompt", MessageStyle::chat);
    const std::vector<Message> before = prompt.text ? std::vector<Message>{{"user", *prompt.text}} : prompt.messages;
    if (before.back().role == "assistant")
        fail(Exit::data, "{}: ends with an answer of the assistant; expected its first steps in '{}'",
             row.place("prompt"), row.name("initial_reason_steps"));
    Row result;
    for (const char* key : {"chosen", "rejected"}) {
        Row& answer = result.answers.emplace_back(chat_row(before, {{"assistant", given + row.text(key)}}));
        answer.given = given.size();
    }
    add_system_to_all(row, result);
    return with_settings(row, std::move(result), MessageStyle::chat);
}

}  // namespace colonnade
