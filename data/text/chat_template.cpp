#include "data/text/chat_template.h"

#include <string_view>

#include "engine/device/error.h"

namespace colonnade {
namespace {

struct Chat {
    const std::vector<Message>& messages;
    bool generation_prompt;
    const std::string& chat_template;
    const std::string& where;
};

/// Appends segments, message by message.
class Writer {
  public:
    Writer& message(size_t index) {
        message_ = index;
        return *this;
    }
    Writer& bos(const char* name = "") { return put(Segment::Kind::bos, Segment::Part::scaffold, name); }
    Writer& text(std::string text) { return put(Segment::Kind::text, Segment::Part::scaffold, std::move(text)); }
    Writer& marker(const char* name) { return put(Segment::Kind::marker, Segment::Part::scaffold, name); }
    Writer& content(std::string text) { return put(Segment::Kind::text, Segment::Part::content, std::move(text)); }
    Writer& end_marker(const char* name) { return put(Segment::Kind::marker, Segment::Part::end, name); }
    Writer& eos() { return put(Segment::Kind::eos, Segment::Part::end, ""); }
    std::vector<Segment> take() { return std::move(segments_); }

  private:
    Writer& put(Segment::Kind kind, Segment::Part part, std::string text) {
        segments_.push_back({kind, part, std::move(text), message_});
        return *this;
    }
    std::vector<Segment> segments_;
    size_t message_ = 0;
};

/// Without leading and trailing white space: the ASCII part of what Jinja's trim strips.
std::string trimmed(std::string_view text) {
    constexpr std::string_view space = " \t\n\r\f\v\x1c\x1d\x1e\x1f";
    const size_t begin = text.find_first_not_of(space);
    if (begin == std::string_view::npos) return "";
    return std::string(text.substr(begin, text.find_last_not_of(space) - begin + 1));
}

/// Index of the first message after a system message. Throws unless user and assistant messages alternate from there.
size_t first_turn(const Chat& chat) {
    const size_t first = chat.messages[0].role == "system" ? 1 : 0;
    if (first == chat.messages.size())
        fail(
            Exit::data,
            "{}: the only message is the system message; the {} template puts it into a user message, which is missing",
            chat.where, chat.chat_template);
    for (size_t i = first; i < chat.messages.size(); ++i)
        if (const char* expected = (i - first) % 2 == 0 ? "user" : "assistant"; chat.messages[i].role != expected)
            fail(Exit::data,
                 "{}: message {} is from role '{}'; the {} template needs alternating user and assistant messages: "
                 "expected '{}'",
                 chat.where, i, chat.messages[i].role, chat.chat_template, expected);
    return first;
}

/// The system message as part of the first user turn; empty for other turns.
std::string system_text(const Chat& chat, size_t turn, const char* before, const char* after) {
    return turn == 1 && chat.messages[0].role == "system" ? before + chat.messages[0].content + after : "";
}

void render_plain(const Chat& chat, Writer& out) {
    out.bos();
    for (size_t i = 0; i < chat.messages.size(); ++i) {
        out.message(i).content(chat.messages[i].content);
        if (chat.messages[i].role == "assistant") out.eos();
    }
}

void render_chatml(const Chat& chat, Writer& out) {
    for (size_t i = 0; i < chat.messages.size(); ++i) {
        const auto& [role, content, train, more] = chat.messages[i];
        out.message(i).marker("<|im_start|>").text(role + "\n").content(content).end_marker("<|im_end|>").text("\n");
    }
    if (chat.generation_prompt) out.marker("<|im_start|>").text("assistant\n");
}

void render_llama2(const Chat& chat, Writer& out) {
    for (size_t i = first_turn(chat); i < chat.messages.size(); ++i) {
        const auto& [role, content, train, more] = chat.messages[i];
        out.message(i);
        if (role == "user")
            out.bos()
                .text("[INST] ")
                .content(trimmed(system_text(chat, i, "<<SYS>>\n", "\n<</SYS>>\n\n") + content))
                .text(" [/INST]");
        else
            out.content(fmt::format(" {} ", trimmed(content))).eos();
    }
}

void render_llama3(const Chat& chat, Writer& out) {
    const auto header = [&](const std::string& role) {
        out.marker("<|start_header_id|>").text(role).marker("<|end_header_id|>").text("\n\n");
    };
    out.bos("<|begin_of_text|>");
    for (size_t i = 0; i < chat.messages.size(); ++i) {
        const auto& [role, content, train, more] = chat.messages[i];
        out.message(i);
        header(role == "tool" ? "ipython" : role);
        out.content(trimmed(content)).end_marker("<|eot_id|>");
    }
    if (chat.generation_prompt) header("assistant");
}

void render_mistral(const Chat& chat, Writer& out) {
    const size_t first = first_turn(chat);
    out.bos();
    for (size_t i = first; i < chat.messages.size(); ++i) {
        const auto& [role, content, train, more] = chat.messages[i];
        out.message(i);
        if (role == "user")
            out.text(" [INST] ").content(system_text(chat, i, "", "\n\n") + content).text(" [/INST]");
        else
            out.content(" " + content).eos();
    }
}

void render_zephyr(const Chat& chat, Writer& out) {
    for (size_t i = 0; i < chat.messages.size(); ++i) {
        const auto& [role, content, train, more] = chat.messages[i];
        out.message(i).text("<|" + role + "|>\n").content(content).eos().text("\n");
    }
    if (chat.generation_prompt) out.text("<|assistant|>\n");
}

void render_gemma(const Chat& chat, Writer& out) {
    const size_t first = first_turn(chat);
    out.bos("<bos>");
    for (size_t i = first; i < chat.messages.size(); ++i) {
        const auto& [role, content, train, more] = chat.messages[i];
        out.message(i).marker("<start_of_turn>").text(role == "user" ? "user\n" : "model\n");
        out.content(system_text(chat, i, "", "\n\n") + trimmed(content)).end_marker("<end_of_turn>").text("\n");
    }
    if (chat.generation_prompt) out.marker("<start_of_turn>").text("model\n");
}

struct Template {
    const char* name;
    void (*render)(const Chat&, Writer&);
};
constexpr Template known_templates[] = {
    {"plain", render_plain},     {"chatml", render_chatml}, {"llama2", render_llama2}, {"llama3", render_llama3},
    {"mistral", render_mistral}, {"zephyr", render_zephyr}, {"gemma", render_gemma},
};

}  // namespace

std::vector<std::string> chat_template_names() {
    std::vector<std::string> names;
    for (const Template& known : known_templates) names.emplace_back(known.name);
    return names;
}

std::vector<Segment> render_chat(const std::string& chat_template, const std::vector<Message>& messages,
                                 bool generation_prompt, const std::string& where) {
    if (messages.empty()) fail(Exit::data, "{}: the chat has no messages", where);
    if (generation_prompt && messages.back().role == "assistant")
        fail(Exit::data, "{}: the last message is from role 'assistant'; expected a message to answer", where);
    for (const Template& known : known_templates) {
        if (chat_template != known.name) continue;
        Writer out;
        known.render({messages, generation_prompt, chat_template, where}, out);
        return out.take();
    }
    fail(Exit::config, "unknown chat template '{}'; expected one of {}", chat_template,
         fmt::join(chat_template_names(), ", "));
}

}  // namespace colonnade
