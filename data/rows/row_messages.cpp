#include "data/rows/row_messages.h"

#include <algorithm>
#include <array>

#include "data/rows/tool_calls.h"
#include "data/rows/unused_keys.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

struct RoleName {
    std::string_view theirs, ours;
    enum class Content { text, calls } content = Content::text;
};
/// OpenAI's roles, ShareGPT's, and those of some templates: ipython (Llama 3), model (Gemma), tool_call and
/// tool_response (ms-swift).
constexpr auto role_names = std::to_array<RoleName>({
    {"system", "system"},
    {"developer", "system"},
    {"user", "user"},
    {"human", "user"},
    {"assistant", "assistant"},
    {"gpt", "assistant"},
    {"chatgpt", "assistant"},
    {"model", "assistant"},
    {"function_call", "assistant", RoleName::Content::calls},
    {"tool_call", "assistant", RoleName::Content::calls},
    {"tool", "tool"},
    {"function", "tool"},
    {"observation", "tool"},
    {"tool_response", "tool"},
    {"ipython", "tool"},
});

const RoleName& read_role(const RowFields& message, const std::string& key) {
    const std::string theirs = message.text(key);
    std::string known;
    for (const RoleName& role : role_names) {
        if (role.theirs == theirs) return role;
        known += (known.empty() ? "" : ", ") + std::string(role.theirs);
    }
    fail(Exit::data, "{}: unknown role {}; expected one of {}", message.where(), shown(theirs), known);
}

/// A part of a content as OpenAI writes it. Only text can be read.
std::string read_part(const RowFields& message, const std::string& place, const Json& part) {
    if (part.is_string()) return part.get<std::string>();
    const bool is_text = part.is_object() && part.value("type", Json()) == "text" && part.contains("text");
    if (!is_text || !part["text"].is_string())
        fail(Exit::data, "{}: {}: expected a text part {{\"type\": \"text\", \"text\": ...}}, found {}",
             message.where(), place, shown(part));
    for (const auto& [key, value] : part.items())
        if (key != "type" && key != "text" && key != "cache_control" && key != "annotations" && !value.is_null())
            fail(Exit::data, "{}: {}: unknown key '{}' of a text part; expected type and text", message.where(), place,
                 shown_key(key));
    return part["text"].get<std::string>();
}

/// A string, or a list of text parts, which are joined.
std::string read_content(const RowFields& message, const std::string& key) {
    const Json& content = message.at(key);
    if (content.is_string()) return content.get<std::string>();
    if (!content.is_array()) message.mistyped(key, "a string or a list of text parts");
    std::string text;
    for (size_t i = 0; i < content.size(); ++i)
        text += read_part(message, fmt::format("{}[{}]", message.name(key), i), content[i]);
    return text;
}

struct LearnedKey {
    const char* key;
    enum class Meaning { weight, learned, masked } meaning = Meaning::learned;
};
/// How much of a message is learned: OpenAI's weight; or whether it is: Axolotl's training, ms-swift's loss,
/// torchtune's masked. Weights come first, so that a switch may only agree with them.
constexpr auto learned_keys = std::to_array<LearnedKey>({
    {"weight", LearnedKey::Meaning::weight},
    {"loss_weight", LearnedKey::Meaning::weight},
    {"train"},
    {"training"},
    {"loss"},
    {"masked", LearnedKey::Meaning::masked},
});

float read_learned_key(const RowFields& message, const LearnedKey& learned) {
    const Json& value = message.at(learned.key);
    const bool is_weight = learned.meaning == LearnedKey::Meaning::weight;
    if (is_weight && !value.is_boolean()) return message.weight(learned.key);
    if (!value.is_boolean() && value != 0 && value != 1)
        fail(Exit::data, "{}: expected true, false, 1 or 0, found {}{}", message.place(learned.key), shown(value),
             value.is_number() ? "; weight takes other numbers" : "");
    const bool set = value.is_boolean() ? value.get<bool>() : value == 1;
    return set == (learned.meaning != LearnedKey::Meaning::masked) ? 1.0f : 0.0f;
}

std::optional<float> read_message_weight(const RowFields& message) {
    std::optional<float> weight;
    const char* first = "";
    for (const LearnedKey& learned : learned_keys) {
        if (!message.find(learned.key)) continue;
        const float found = read_learned_key(message, learned);
        const bool agrees = !weight || (learned.meaning == LearnedKey::Meaning::weight ? found == *weight
                                                                                       : (found > 0) == (*weight > 0));
        if (!agrees)
            fail(Exit::data, "{}: {} contradicts key '{}' with {}; expected one of them", message.place(learned.key),
                 shown(message.at(learned.key)), message.name(first), shown(message.at(first)));
        if (weight) continue;
        weight = found;
        first = learned.key;
    }
    return weight;
}

constexpr size_t most_keys = limits::message_keys;

/// The keys of a message that no reader asked for.
Json read_more(const RowFields& message) {
    Json more;
    if (const size_t keys = message.object().size(); keys > most_keys)
        fail(Exit::data, "{}: {} keys, expected at most {}", message.where(), keys, most_keys);
    for (const auto& [key, value] : message.unread()) {
        if (key == "role" || key == "content")
            fail(Exit::data, "{}: key '{}' beside '{}'; expected one of them", message.where(), key,
                 message.name(key) == key ? (key == "role" ? "from" : "value") : message.name(key));
        if (may_select_tokens(key) || key.starts_with("train"))
            fail(Exit::data,
                 "{}: key '{}' may say what is learned, and is not supported; expected train with true or "
                 "false, or weight with a number, for the whole message",
                 message.where(), shown_key(key));
        require_finite(value, fmt::format("{}: key '{}'", message.where(), shown_key(key)));
        more[key] = value;
    }
    return more;
}

}  // namespace

Message read_message(const Json& object, MessageStyle style, const Columns& columns, const std::string& where) {
    const RowFields message(object, columns, where);
    const bool chat = style == MessageStyle::chat;
    const std::string role_key = chat ? "role" : "from", content_key = chat ? "content" : "value";
    const RoleName& role = read_role(message, role_key);
    Json calls = read_tool_calls(message);
    Message result{.role = std::string(role.ours), .content = {}};
    if (role.content == RoleName::Content::calls) {
        if (!calls.is_null())
            fail(Exit::data, "{}: role '{}' beside tool_calls; expected one of them", where, role.theirs);
        calls = tool_calls_of_text(message, content_key);
    } else if (calls.is_null() || message.find(content_key)) {
        result.content = read_content(message, content_key);
    }
    result.weight = read_message_weight(message);
    result.more = read_more(message);
    if (!calls.is_null()) result.more["tool_calls"] = std::move(calls);
    return result;
}

std::vector<Message> read_messages(const RowFields& row, const std::string& key, MessageStyle style) {
    const Json& list = row.filled_list(key);
    std::vector<Message> messages;
    messages.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i)
        messages.push_back(
            read_message(list[i], style, row.columns(), fmt::format("{}: {}[{}]", row.where(), row.name(key), i)));
    return messages;
}

std::vector<Message> read_chat_messages(const RowFields& row, const std::string& key, MessageStyle style) {
    std::vector<Message> messages = read_messages(row, key, style);
    add_system(row, messages);
    return messages;
}

void add_system(const RowFields& row, std::vector<Message>& messages) {
    const std::string system = row.text_or_empty("system");
    if (system.empty()) return;
    if (messages.empty() || messages[0].role != "system")
        messages.insert(messages.begin(), {"system", system});
    else if (messages[0].content != system)
        fail(Exit::data, "{}: found {} beside messages that begin with another system prompt, {}; expected one of them",
             row.place("system"), shown(system), shown(messages[0].content));
}

std::vector<Message> read_alpaca_prompt(const RowFields& row) {
    std::vector<Message> messages;
    const auto say = [&](const char* role, std::string content) { messages.push_back({role, std::move(content)}); };
    if (row.find("history")) {
        const Json& history = row.list("history");
        for (size_t i = 0; i < history.size(); ++i) {
            const Json& turn = history[i];
            if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() || !turn[1].is_string())
                fail(Exit::data, "{}: {}[{}]: expected [question, answer], found {}", row.where(), row.name("history"),
                     i, shown(turn));
            say("user", turn[0].get<std::string>());
            say("assistant", turn[1].get<std::string>());
        }
    }
    if (row.find_filled("input") && row.find_filled("context"))
        fail(Exit::data, "{}: found beside '{}'; expected one of them", row.place("context"), row.name("input"));
    const std::string input = row.text_or_empty(row.find_filled("context") ? "context" : "input");
    say("user", row.text("instruction") + (input.empty() ? "" : "\n" + input));
    add_system(row, messages);
    return messages;
}

}  // namespace colonnade
