#include "data/row_formats.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "engine/error.h"

namespace colonnade {
namespace {

/// A value as errors show it: one line, never long.
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

/// One JSON object read under the user's column names.
class Fields {
  public:
    Fields(const Json& object, const Columns& columns, std::string where)
        : object_(object), columns_(columns), where_(std::move(where)) {
        if (!object.is_object()) fail(Exit::data, "{}: expected an object, found {}", where_, object.type_name());
    }

    const std::string& where() const { return where_; }
    const Columns& columns() const { return columns_; }

    std::string name(const std::string& key) const {
        const auto renamed = columns_.find(key);
        return renamed == columns_.end() ? key : renamed->second;
    }
    const Json* find(const std::string& key) const {
        const auto item = object_.find(name(key));
        return item == object_.end() || item->is_null() ? nullptr : &*item;
    }
    const Json& at(const std::string& key) const {
        if (const Json* value = find(key)) return *value;
        const char* state = object_.contains(name(key)) ? "is null" : "is missing";
        const std::string ours = name(key) == key ? "" : fmt::format(" (column '{}')", key);
        fail(Exit::data, "{}: key '{}'{} {}; found keys: {}", where_, name(key), ours, state, found_keys(object_));
    }
    [[noreturn]] void mistyped(const std::string& key, const char* expected) const {
        fail(Exit::data, "{}: key '{}': expected {}, found {}", where_, name(key), expected, at(key).type_name());
    }
    const Json& list(const std::string& key) const {
        if (!at(key).is_array()) mistyped(key, "a list");
        return at(key);
    }
    const Json& filled_list(const std::string& key) const {
        if (list(key).empty()) fail(Exit::data, "{}: key '{}': the list is empty", where_, name(key));
        return list(key);
    }
    std::string text(const std::string& key) const {
        if (!at(key).is_string()) mistyped(key, "a string");
        return at(key).get<std::string>();
    }
    std::string text_or_empty(const std::string& key) const { return find(key) ? text(key) : ""; }

  private:
    const Json& object_;
    const Columns& columns_;
    std::string where_;
};

/// A string, or OpenAI's list of parts as long as all of them are text.
std::string read_content(const Fields& message) {
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

std::optional<bool> read_train_switch(const Fields& message) {
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
std::string read_role(const Fields& message, const std::string& key, const std::array<RoleName, N>& roles) {
    const std::string theirs = message.text(key);
    std::string known;
    for (const RoleName& role : roles) {
        if (role.theirs == theirs) return std::string(role.ours);
        known += (known.empty() ? "" : ", ") + std::string(role.theirs);
    }
    fail(Exit::data, "{}: unknown role {}; expected one of {}", message.where(), shown(theirs), known);
}

void append_messages(const Fields& row, const std::string& key, std::vector<Message>& messages) {
    const Json& list = row.filled_list(key);
    for (size_t i = 0; i < list.size(); ++i) {
        const Fields message(list[i], row.columns(), fmt::format("{}: {}[{}]", row.where(), row.name(key), i));
        messages.push_back({read_role(message, "role", chat_roles), read_content(message), read_train_switch(message)});
    }
}

Row read_chat(const Fields& row) {
    Row result;
    append_messages(row, "messages", result.messages);
    return result;
}

Row read_prompt_completion(const Fields& row) {
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
    append_messages(row, "prompt", result.messages);
    result.prompt_messages = static_cast<int64_t>(result.messages.size());
    append_messages(row, "completion", result.messages);
    return result;
}

Row read_alpaca(const Fields& row) {
    Row result;
    const auto say = [&](const char* role, std::string content) {
        result.messages.push_back({role, std::move(content), std::nullopt});
    };
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
    say("assistant", row.text("output"));
    return result;
}

Row read_sharegpt(const Fields& row) {
    Row result;
    if (const std::string system = row.text_or_empty("system"); !system.empty())
        result.messages.push_back({"system", system, std::nullopt});
    const Json& list = row.filled_list("conversations");
    for (size_t i = 0; i < list.size(); ++i) {
        const Fields message(list[i], row.columns(),
                             fmt::format("{}: {}[{}]", row.where(), row.name("conversations"), i));
        result.messages.push_back(
            {read_role(message, "from", sharegpt_roles), message.text("value"), read_train_switch(message)});
    }
    return result;
}

Row read_text(const Fields& row) {
    Row result;
    result.completion = row.text("text");
    return result;
}

/// Integers in [0, 2^31), or `besides`.
std::vector<int32_t> read_ids(const Fields& row, const std::string& key, int32_t besides, const char* expected) {
    constexpr auto greatest = std::numeric_limits<int32_t>::max();
    const Json& list = row.filled_list(key);
    std::vector<int32_t> ids;
    ids.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
        const bool fits = list[i].is_number_unsigned()
                              ? list[i].get<uint64_t>() <= greatest
                              : list[i].is_number_integer() && list[i].get<int64_t>() == besides;
        if (!fits)
            fail(Exit::data, "{}: {}[{}]: expected {}, found {}", row.where(), row.name(key), i, expected,
                 shown(list[i]));
        ids.push_back(list[i].get<int32_t>());
    }
    return ids;
}

void require_same_length(const Fields& row, const std::string& key, size_t length, size_t expected) {
    if (length != expected)
        fail(Exit::data, "{}: '{}' has {} entries, '{}' has {}; expected as many", row.where(), row.name(key), length,
             row.name("input_ids"), expected);
}

Row read_tokens(const Fields& row) {
    Row result;
    result.input_ids = read_ids(row, "input_ids", 0, "a token id");
    result.labels = result.input_ids;
    const size_t length = result.input_ids.size();
    if (row.find("labels")) {
        result.labels = read_ids(row, "labels", -100, "a token id or -100");
        require_same_length(row, "labels", result.labels.size(), length);
    }
    if (row.find("attention_mask")) {
        const std::vector<int32_t> mask = read_ids(row, "attention_mask", 0, "0 or 1");
        require_same_length(row, "attention_mask", mask.size(), length);
        const auto ones = static_cast<size_t>(std::find(mask.begin(), mask.end(), 0) - mask.begin());
        for (size_t i = 0; i < length; ++i)
            if (mask[i] != (i < ones ? 1 : 0))
                fail(Exit::data, "{}: {}[{}]: expected ones, then zeros (padding at the end), found {}", row.where(),
                     row.name("attention_mask"), i, mask[i]);
        if (ones == 0) fail(Exit::data, "{}: key '{}': nothing but padding", row.where(), row.name("attention_mask"));
        result.input_ids.resize(ones);
        result.labels.resize(ones);
    }
    return result;
}

struct RowFormat {
    std::string_view name;
    std::vector<std::string> telling;  ///< keys that a row of this convention must have
    std::vector<std::string> further;  ///< keys it may have, those inside a message included
    Row (*read)(const Fields&);
};

/// In the order in which detection tries them: a row with a chat and a plain copy of its text is a chat.
const std::vector<RowFormat>& row_formats() {
    static const std::vector<RowFormat> formats = {
        {"tokens", {"input_ids"}, {"labels", "attention_mask"}, read_tokens},
        {"messages", {"messages"}, {"role", "content", "train", "weight"}, read_chat},
        {"sharegpt", {"conversations"}, {"system", "from", "value", "train", "weight"}, read_sharegpt},
        {"alpaca", {"instruction", "output"}, {"input", "system", "history"}, read_alpaca},
        {"prompt_completion", {"prompt", "completion"}, {"role", "content", "train", "weight"}, read_prompt_completion},
        {"text", {"text"}, {}, read_text},
    };
    return formats;
}

std::string known_formats() {
    std::string known;
    for (const RowFormat& format : row_formats())
        known += fmt::format("{}{} {{{}}}", known.empty() ? "" : ", ", format.name, fmt::join(format.telling, ", "));
    return known;
}

}  // namespace

void check_row_format(const DatasetSpec& spec) {
    std::vector<std::string> names;
    bool known = spec.type == "auto";
    for (const RowFormat& format : row_formats()) {
        if (spec.type != "auto" && spec.type != format.name) continue;
        known = true;
        names.insert(names.end(), format.telling.begin(), format.telling.end());
        names.insert(names.end(), format.further.begin(), format.further.end());
    }
    if (!known) fail(Exit::config, "{}: unknown type '{}'; expected auto, {}", spec.path, spec.type, known_formats());
    for (const auto& [ours, theirs] : spec.columns)
        if (std::find(names.begin(), names.end(), ours) == names.end())
            fail(Exit::config, "{}: columns: type {} has no key '{}' that '{}' could stand for", spec.path, spec.type,
                 ours, theirs);
}

std::string detect_row_format(const Json& object, const Columns& columns, const std::string& where) {
    const Fields fields(object, columns, where);
    for (const RowFormat& format : row_formats())
        if (std::all_of(format.telling.begin(), format.telling.end(),
                        [&](const auto& key) { return fields.find(key); }))
            return std::string(format.name);
    fail(Exit::data,
         "{}: cannot tell the convention of this row; found keys: {}; expected {}; name it with type, rename keys with "
         "columns",
         where, found_keys(object), known_formats());
}

Row read_row(const std::string& type, const Json& object, const Columns& columns, const std::string& where) {
    for (const RowFormat& format : row_formats())
        if (format.name == type) return format.read(Fields(object, columns, where));
    fail(Exit::internal, "no reader for rows of type '{}'", type);
}

}  // namespace colonnade
