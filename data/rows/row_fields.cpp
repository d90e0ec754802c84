#include "data/rows/row_fields.h"

#include <algorithm>
#include <array>
#include <limits>

#include "engine/device/error.h"

namespace colonnade {

std::string shown(const Json& value) {
    std::string text = value.dump(-1, ' ', true);
    return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

std::string found_keys(const Json& object) {
    std::vector<std::string> keys;
    for (const auto& item : object.items()) {
        if (keys.size() == 20) return fmt::format("{}, ... ({} keys)", fmt::join(keys, ", "), object.size());
        keys.push_back(shown(item.key()));
    }
    return keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", "));
}

RowFields::RowFields(const Json& object, const Columns& columns, std::string where)
    : object_(object), columns_(columns), where_(std::move(where)) {
    if (!object.is_object()) fail(Exit::data, "{}: expected an object, found {}", where_, object.type_name());
}

std::string RowFields::name(const std::string& key) const {
    const auto renamed = columns_.find(key);
    return renamed == columns_.end() ? key : renamed->second;
}

const Json* RowFields::find(const std::string& key) const {
    const auto item = object_.find(name(key));
    return item == object_.end() || item->is_null() ? nullptr : &*item;
}

const Json& RowFields::at(const std::string& key) const {
    if (const Json* value = find(key)) return *value;
    const char* state = object_.contains(name(key)) ? "is null" : "is missing";
    const std::string ours = name(key) == key ? "" : fmt::format(" (column '{}')", key);
    fail(Exit::data, "{}: key '{}'{} {}; found keys: {}", where_, name(key), ours, state, found_keys(object_));
}

void RowFields::mistyped(const std::string& key, const char* expected) const {
    fail(Exit::data, "{}: key '{}': expected {}, found {}", where_, name(key), expected, at(key).type_name());
}

const Json& RowFields::list(const std::string& key) const {
    if (!at(key).is_array()) mistyped(key, "a list");
    return at(key);
}

const Json& RowFields::filled_list(const std::string& key) const {
    if (list(key).empty()) fail(Exit::data, "{}: key '{}': the list is empty", where_, name(key));
    return list(key);
}

std::string RowFields::text(const std::string& key) const {
    if (!at(key).is_string()) mistyped(key, "a string");
    return at(key).get<std::string>();
}

namespace {

/// A string, or a list of parts as OpenAI writes it. All parts must be text.
std::string read_content(const RowFields& message) {
    const Json& content = message.at("content");
    if (content.is_string()) return content.get<std::string>();
    if (!content.is_array()) message.mistyped("content", "a string or a list of text parts");
    std::string text;
    for (size_t i = 0; i < content.size(); ++i) {
        const Json& part = content[i];
        if (!part.is_object() || part.value("type", Json()) != "text" || !part.value("text", Json()).is_string())
            fail(Exit::data, "{}: {}[{}]: expected a text part {{\"type\": \"text\", \"text\": ...}}, found {}",
                 message.where(), message.name("content"), i, shown(part));
        text += part["text"].get<std::string>();
    }
    return text;
}

std::optional<bool> read_train_switch(const RowFields& message) {
    if (const Json* train = message.find("train")) {
        if (!train->is_boolean()) message.mistyped("train", "true or false");
        return train->get<bool>();
    }
    if (const Json* weight = message.find("weight")) {
        if (*weight != 0 && *weight != 1)
            fail(Exit::data, "{}: key '{}': expected 0 or 1, found {}", message.where(), message.name("weight"),
                 shown(*weight));
        return *weight == 1;
    }
    return std::nullopt;
}

struct RoleName {
    std::string_view theirs, ours;
};
constexpr std::array<RoleName, 5> chat_roles = {
    {{"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}, {"tool", "tool"}}};
constexpr std::array<RoleName, 8> sharegpt_roles = {{{"human", "user"},
                                                     {"gpt", "assistant"},
                                                     {"system", "system"},
                                                     {"observation", "tool"},
                                                     {"function_call", "assistant"},
                                                     {"user", "user"},
                                                     {"assistant", "assistant"},
                                                     {"tool", "tool"}}};

template <size_t N>
std::string read_role(const RowFields& message, const std::string& key, const std::array<RoleName, N>& roles) {
    const std::string theirs = message.text(key);
    std::string known;
    for (const RoleName& role : roles) {
        if (role.theirs == theirs) return std::string(role.ours);
        known += (known.empty() ? "" : ", ") + std::string(role.theirs);
    }
    fail(Exit::data, "{}: unknown role {}; expected one of {}", message.where(), shown(theirs), known);
}

}  // namespace

Message read_message(const Json& object, MessageStyle style, const Columns& columns, const std::string& where) {
    const RowFields message(object, columns, where);
    if (style == MessageStyle::sharegpt)
        return {read_role(message, "from", sharegpt_roles), message.text("value"), read_train_switch(message)};
    return {read_role(message, "role", chat_roles), read_content(message), read_train_switch(message)};
}

std::vector<Message> read_messages(const RowFields& row, const std::string& key, MessageStyle style) {
    const Json& list = row.filled_list(key);
    std::vector<Message> messages;
    for (size_t i = 0; i < list.size(); ++i)
        messages.push_back(
            read_message(list[i], style, row.columns(), fmt::format("{}: {}[{}]", row.where(), row.name(key), i)));
    return messages;
}

std::vector<Message> read_sharegpt_messages(const RowFields& row) {
    std::vector<Message> messages = read_messages(row, "conversations", MessageStyle::sharegpt);
    if (const std::string system = row.text_or_empty("system"); !system.empty())
        messages.insert(messages.begin(), {"system", system});
    return messages;
}

std::vector<Message> read_alpaca_prompt(const RowFields& row) {
    std::vector<Message> messages;
    const auto say = [&](const char* role, std::string content) { messages.push_back({role, std::move(content)}); };
    if (const std::string system = row.text_or_empty("system"); !system.empty()) say("system", system);
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
    const std::string input = row.text_or_empty("input");
    say("user", row.text("instruction") + (input.empty() ? "" : "\n" + input));
    return messages;
}

std::vector<int32_t> read_ids(const RowFields& row, const std::string& key, int32_t also, const char* expected) {
    constexpr auto greatest = std::numeric_limits<int32_t>::max();
    const Json& list = row.filled_list(key);
    std::vector<int32_t> ids;
    ids.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
        const bool fits = list[i].is_number_unsigned() ? list[i].get<uint64_t>() <= greatest
                                                       : list[i].is_number_integer() && list[i].get<int64_t>() == also;
        if (!fits)
            fail(Exit::data, "{}: {}[{}]: expected {}, found {}", row.where(), row.name(key), i, expected,
                 shown(list[i]));
        ids.push_back(list[i].get<int32_t>());
    }
    return ids;
}

void require_same_length(const RowFields& row, const std::string& key, size_t length, const std::string& ids_key,
                         size_t expected) {
    if (length != expected)
        fail(Exit::data, "{}: '{}' has {} entries, '{}' has {}; expected the same number", row.where(), row.name(key),
             length, row.name(ids_key), expected);
}

std::vector<int32_t> read_labels(const RowFields& row, const std::string& key, const std::string& ids_key,
                                 const std::vector<int32_t>& ids) {
    if (!row.find(key)) return ids;
    std::vector<int32_t> labels = read_ids(row, key, -100, "a token id or -100");
    require_same_length(row, key, labels.size(), ids_key, ids.size());
    return labels;
}

}  // namespace colonnade
