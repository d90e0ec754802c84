#include "data/text/chat_losses.h"

#include <algorithm>
#include <set>
#include <utility>

#include "data/text/jinja/text.h"
#include "data/text/unicode.h"

namespace colonnade {
namespace {

/// Bytes of characters that are not white space, as Python's strip() knows it.
size_t visible(std::string_view text) {
    size_t count = 0, bytes = 1;
    for (size_t at = 0; at < text.size(); at += bytes) {
        const auto lead = static_cast<unsigned char>(text[at]);
        if (lead < 0x80) {  // most text
            count += lead > ' ' || lead < '\t' || (lead > '\r' && lead < 0x1C);
            bytes = 1;
            continue;
        }
        bytes = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        if (at + bytes > text.size()) return count + text.size() - at;
        if (!jinja::is_python_space(character_at(text.data() + at).point)) count += bytes;
    }
    return count;
}

/// Whether a key says something: null, "" and empty lists do not.
bool has(const Json& json, const char* key) {
    if (!json.is_object() || !json.contains(key)) return false;
    const Json& value = json[key];
    return value.is_string() ? visible(value.get_ref<const std::string&>()) > 0 : !value.empty();
}

constexpr const char* reasoning_keys[] = {"reasoning_content", "thinking", "reasoning"};

bool is_reasoning(const std::string& field) {
    return std::ranges::find(reasoning_keys, field) != std::end(reasoning_keys);
}
bool has_reasoning(const Message& message) {
    return std::ranges::any_of(reasoning_keys, [&](const char* key) { return has(message.more, key); });
}

/// Whether message `i` is the last answer, and no question follows.
bool is_last_answer(std::span<const Message> messages, size_t i) {
    return messages[i].role == "assistant" &&
           std::ranges::none_of(messages.begin() + static_cast<std::ptrdiff_t>(i) + 1, messages.end(),
                                [](const Message& m) { return m.role == "assistant" || m.role == "user"; });
}

/// What of a chat its rendered text holds.
struct Written {
    struct Parts {
        size_t content = 0;  ///< visible bytes
        bool reasoning = false;
        std::set<std::string> calls;  ///< paths, such as messages[1].tool_calls[0]
    };
    std::vector<Parts> messages;
    std::set<std::string> variables;  ///< of the row

    Written(const Chat& chat, const jinja::Rendered& rendered) : messages(chat.messages.size()) {
        size_t begin = 0;
        for (const jinja::Run& run : rendered.text.runs()) {
            const size_t start = std::exchange(begin, run.end);
            const jinja::Origin& origin = rendered.origin(run);
            if (!origin.input) continue;
            if (origin.message >= messages.size()) {
                variables.insert(origin.field);
                continue;
            }
            Parts& parts = messages[origin.message];
            if (origin.field == "content")
                parts.content += visible(std::string_view(rendered.text.bytes()).substr(start, run.end - start));
            parts.reasoning |= is_reasoning(origin.field);
            if (origin.field != "tool_calls") continue;
            const std::string path = rendered.path(run.mark.origin);
            parts.calls.insert(path.substr(0, path.find(']', path.find(".tool_calls[")) + 1));
        }
    }
};

/// Visible bytes of a content that must be written. Reasoning that an answer's content spells may be written with other
/// tags; in earlier answers than the last it may be missing.
size_t least_visible(const Message& message, bool last_answer) {
    constexpr std::string_view open = "<think>", close = "</think>";
    const std::string_view content = message.content;
    const size_t end = message.role == "assistant" ? content.rfind(close) : content.npos;
    if (end == content.npos) return visible(content);
    if (!last_answer) return visible(content.substr(end + close.size()));
    const size_t all = visible(content), markup = open.size() + close.size();
    return all > markup ? all - markup : 0;
}

std::optional<std::string> loss_of_message(const Chat& chat, size_t i, const Written::Parts& written,
                                           bool writes_reasoning) {
    const Message& message = chat.messages[i];
    const bool last = is_last_answer(chat.messages, i);
    if (const size_t least = least_visible(message, last); written.content < least) {
        if (written.content > 0)
            return fmt::format("a part of the content of message {}, from role '{}'", i, message.role);
        return fmt::format("{}message {}, from role '{}'", written.calls.empty() ? "" : "the content of ", i,
                           message.role);
    }
    const bool calls = has(message.more, "tool_calls") && message.more["tool_calls"].is_array();
    if (calls && written.calls.empty()) return fmt::format("the tool_calls of message {}", i);
    if (calls && written.calls.size() < message.more["tool_calls"].size())
        return fmt::format("some of the tool_calls of message {}", i);
    if (has_reasoning(message) && !written.reasoning && (last || !writes_reasoning))
        return fmt::format("the reasoning of message {}", i);
    return std::nullopt;
}

}  // namespace

std::optional<std::string> first_loss(const Chat& chat, const jinja::Rendered& rendered, bool writes_reasoning) {
    const Written written(chat, rendered);
    for (const char* key : {"tools", "documents"})
        if (has(chat.variables, key) && !written.variables.contains(key)) return fmt::format("the {} of the row", key);
    writes_reasoning |= std::ranges::any_of(written.messages, [](const auto& parts) { return parts.reasoning; });
    for (size_t i = 0; i < chat.messages.size(); ++i)
        if (auto loss = loss_of_message(chat, i, written.messages[i], writes_reasoning)) return loss;
    return std::nullopt;
}

bool has_reasoning_of(size_t message, const jinja::Rendered& rendered) {
    return std::ranges::any_of(rendered.text.runs(), [&](const jinja::Run& run) {
        const jinja::Origin& origin = rendered.origin(run);
        return origin.input && origin.message == message && is_reasoning(origin.field);
    });
}

}  // namespace colonnade
