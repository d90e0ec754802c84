#include "data/text/chat_renderer.h"

#include <algorithm>

#include "data/text/chat_losses.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

using Kind = ChatPart::Kind;

/// Calls change(part) for the parts of [begin, end), which become parts of their own.
template <typename Change>
void repaint(std::vector<ChatPart>& parts, Span span, Change&& change) {
    if (span.begin >= span.end) return;
    for (const size_t border : {span.begin, span.end}) {
        const auto part = std::ranges::lower_bound(parts, border, {}, &ChatPart::end);
        if (part == parts.end() || part->end == border || border == 0) continue;
        ChatPart before = *part;
        before.end = border;
        parts.insert(part, before);
    }
    auto part = std::ranges::upper_bound(parts, span.begin, {}, &ChatPart::end);
    for (; part != parts.end() && part->end <= span.end; ++part) change(*part);
}

/// End of the markup that closes reasoning, and of the white space behind it: "\n</think>\n\n", "<|end|>", "[/THINK]".
size_t end_of_closing(std::string_view text, Span gap) {
    const std::string_view between = text.substr(gap.begin, gap.size());
    const size_t bracket = between.find_first_of(">]");
    if (bracket == between.npos) return gap.end;
    return gap.begin + std::min(between.find_first_not_of(" \n", bracket + 1), between.size());
}

/// Reasoning that an answer's content spells, and its tags; all empty if there is none.
struct SpelledReasoning {
    Span whole, open, close;
};
/// Finds <think>...</think> at the beginning of an answer; the generation prompt may have written <think>.
SpelledReasoning spelled_reasoning(std::string_view text, Span answer) {
    constexpr std::string_view open = "<think>", close = "</think>", blank = " \n\t\r";
    const size_t end = text.substr(0, answer.end).find(close, answer.begin);
    if (end == text.npos) return {};
    const size_t first = text.find_first_not_of(blank, answer.begin);
    const bool opens = text.substr(first).starts_with(open);
    const size_t begin = first + (opens ? open.size() : 0);
    const std::string_view before = text.substr(0, answer.begin);
    const bool opened = before.substr(0, before.find_last_not_of(blank) + 1).ends_with(open);
    if ((!opened && !opens) || begin > end) return {};
    const size_t behind = end + close.size();
    SpelledReasoning found{.whole = {}, .open = {first, begin}, .close = {end, behind}};
    if (text.find_first_not_of(blank, begin) < end)  // else the answer says that it comes without reasoning
        found.whole = {answer.begin, std::min(text.find_first_not_of(blank, behind), answer.end)};
    return found;
}

/// The kinds of a turn's bytes. Text between two parts belongs to the part behind it, but for what closes reasoning.
void paint_turn(RenderedChat& chat, const jinja::Turn& turn, size_t end_marker) {
    struct Piece {
        Span span;
        Kind kind;
    };
    const auto paint = [&](Span span, Kind kind) {
        repaint(chat.parts, span, [&](ChatPart& part) {
            part.kind = kind;
            part.message = turn.message;
        });
    };
    std::vector<Piece> pieces;
    const auto collect = [&](const std::vector<Span>& spans, Kind kind) {
        for (const Span& span : spans) pieces.push_back({span, kind});
    };
    collect(turn.content, Kind::content);
    collect(turn.thinking, Kind::thinking);
    collect(turn.tool_calls, Kind::tool_calls);
    std::ranges::sort(pieces, {}, [](const Piece& p) { return p.span.begin; });
    size_t begin = turn.whole.begin;
    for (size_t i = 0; i < pieces.size(); ++i) {
        const bool last = i + 1 == pieces.size(), thinking = pieces[i].kind == Kind::thinking;
        const size_t end = last       ? end_marker
                           : thinking ? end_of_closing(chat.text, {pieces[i].span.end, pieces[i + 1].span.begin})
                                      : pieces[i].span.end;
        paint({begin, end}, pieces[i].kind);
        begin = end;
    }
    if (turn.thinking.empty()) {  // its tags are those of the template
        const SpelledReasoning spelled = spelled_reasoning(chat.text, {turn.whole.begin, end_marker});
        paint(spelled.whole, Kind::thinking);
        for (const Span& tag : {spelled.open, spelled.close})
            repaint(chat.parts, tag, [](ChatPart& part) { part.from_row = false; });
    }
    paint({end_marker, turn.whole.end}, Kind::end);
}

/// End markers that directly follow the content of other messages than the assistant's end those messages.
void paint_other_ends(RenderedChat& chat, std::span<const Message> messages,
                      const std::vector<std::string>& end_markers) {
    std::vector<ChatPart> ends;
    std::vector<Span> spans;
    for (size_t i = 0; i + 1 < chat.parts.size(); ++i) {
        const ChatPart &part = chat.parts[i], &next = chat.parts[i + 1];
        if (part.kind != Kind::content || next.kind != Kind::scaffold || messages[part.message].role == "assistant")
            continue;
        const std::string_view behind(chat.text.data() + part.end, next.end - part.end);
        const size_t begin = std::min(behind.find_first_not_of(" \n"), behind.size());
        for (const std::string& marker : end_markers) {
            if (marker.empty() || !behind.substr(begin).starts_with(marker)) continue;
            spans.push_back({part.end + begin, part.end + begin + marker.size()});
            ends.push_back({0, Kind::end, part.message, false});
            break;
        }
    }
    for (size_t i = 0; i < spans.size(); ++i)
        repaint(chat.parts, spans[i], [&](ChatPart& part) {
            part.kind = Kind::end;
            part.message = ends[i].message;
        });
}

/// Only what {% generation %} blocks wrote belongs to answers. One outside of messages belongs to the answer before it.
void keep_generation(RenderedChat& chat, const jinja::Rendered& rendered, std::span<const Message> messages,
                     const std::vector<std::string>& end_markers) {
    size_t begin = 0, answer = ChatPart::no_message;
    const auto drop = [&](size_t end) {
        repaint(chat.parts, {begin, end}, [&](ChatPart& part) {
            if (part.message < messages.size() && messages[part.message].role == "assistant")
                part.kind = Kind::scaffold;
        });
    };
    for (const Span& span : rendered.generation) {
        drop(span.begin);
        const bool ends =
            std::ranges::find(end_markers, chat.text.substr(span.begin, span.size())) != end_markers.end();
        repaint(chat.parts, span, [&](ChatPart& part) {
            if (part.message == ChatPart::no_message) part.message = answer;
            answer = part.message;
            if (part.kind == Kind::scaffold && answer != ChatPart::no_message)
                part.kind = ends ? Kind::end : Kind::content;
        });
        begin = span.end;
    }
    drop(rendered.text.size());
}

/// What messages and variables of the row wrote. Roles and special tokens are the template's.
bool is_from_row(const jinja::Origin& origin) {
    if (!origin.input) return false;
    if (origin.message != jinja::Origin::kNoMessage) return origin.field != "role";
    return !origin.field.ends_with("_token");
}

}  // namespace

ChatRenderer::ChatRenderer(std::shared_ptr<const ChatTemplate> chat_template,
                           std::shared_ptr<const Tokenizer> tokenizer, const std::vector<int32_t>& end_ids)
    : template_(std::move(chat_template)), tokenizer_(std::move(tokenizer)) {
    probe();
    const auto add_end = [&](std::optional<int32_t> id) {
        if (id) marks_.end_markers.push_back(tokenizer_->piece(*id));
    };
    add_end(end_token_);
    add_end(tokenizer_->eos());
    for (const int32_t id : end_ids) add_end(id);
}

Json ChatRenderer::variables_of(const Chat& chat) const {
    Json variables = template_->settings().variables;
    if (chat.variables.is_object()) variables.update(chat.variables);
    Json messages = Json::array();
    for (const Message& message : chat.messages) {
        Json& json = messages.emplace_back(Json{{"role", message.role}, {"content", message.content}});
        if (message.more.is_object())
            for (const auto& [key, value] : message.more.items()) json[key] = value;
    }
    const std::string& own_bos = template_->own_bos();
    const bool has_own_bos = !own_bos.empty() && tokenizer_->piece_id(own_bos);
    const RoleTokens& roles = tokenizer_->roles();
    variables["bos_token"] = has_own_bos ? own_bos : tokenizer_->piece_or_empty(roles.bos);
    variables["eos_token"] = tokenizer_->piece_or_empty(roles.eos);
    variables["pad_token"] = tokenizer_->piece_or_empty(roles.pad);
    variables["unk_token"] = tokenizer_->piece_or_empty(roles.unk);
    variables["messages"] = std::move(messages);
    variables["add_generation_prompt"] = chat.generation_prompt;
    return jinja::chat_variables(std::move(variables));
}

jinja::Rendered ChatRenderer::render_probe(const std::vector<Message>& messages, bool generation_prompt) const {
    const Json none;
    return template_->render(variables_of({messages, none, generation_prompt}), false, "probe");
}

/// Renders short chats to learn the generation prompt and the token behind an answer. Templates may refuse one of them.
void ChatRenderer::probe() {
    const Message system{"system", "s"}, user{"user", "u"}, answer{"assistant", "zqz"};
    try {
        const std::string open = render_probe({user}, false).text.bytes();
        const std::string prompt = render_probe({user}, true).text.bytes();
        // Some templates write an end of text in place of the generation prompt, so `prompt` may leave `open` early.
        const auto parted = std::ranges::mismatch(open, prompt).in2;
        marks_.header.assign(parted, prompt.end());
    } catch (const Error&) {
    }
    probe_reasoning();
    for (const std::vector<Message>& chat :
         {std::vector<Message>{system, user, answer, user, answer}, {user, answer}}) {
        jinja::Rendered rendered;
        try {
            rendered = render_probe(chat, false);
        } catch (const Error&) {
            continue;
        }
        const std::string& text = rendered.text.bytes();
        find_spelled_out(text);
        if (const size_t first = text.find(answer.content); first != text.npos) {
            // The last answer may end in a way of its own, as with <|return|>; that is where generation stops.
            const auto of_first = end_behind(rendered, first);
            end_token_ = end_behind(rendered, text.rfind(answer.content));
            if (!end_token_) end_token_ = of_first;
            if (of_first) marks_.end_markers.push_back(tokenizer_->piece(*of_first));
        }
        return;
    }
}

/// The last special token of a text that ends with a tool call: some templates end those in a way of their own.
void ChatRenderer::find_end_of_calls(const jinja::Rendered& rendered) {
    std::optional<int32_t> last;
    for (const SplitPart& part : tokenizer_->split(rendered.text.bytes(), {}).parts)
        if (part.id >= 0 && tokenizer_->is_special(part.id)) last = part.id;
    const bool written = std::ranges::any_of(rendered.origins, [](const auto& o) { return o.field == "tool_calls"; });
    if (last && written) marks_.end_markers.push_back(tokenizer_->piece(*last));
}

/// Some templates write reasoning only beside tool calls.
void ChatRenderer::probe_reasoning() {
    const Json call = {
        {"id", "call00000"}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", Json::object()}}}};
    const Json reasoning = {{"reasoning_content", "r"}};
    Json with_call = reasoning;
    with_call["tool_calls"] = Json::array({call});
    writes_reasoning_ = false;
    for (const Json& more : {reasoning, with_call}) {
        const std::vector<Message> chat = {{"user", "u", {}, {}},
                                           {"assistant", more == reasoning ? "a" : "", {}, more}};
        try {
            const Json none;
            const jinja::Rendered rendered = render_probe(chat, false);
            writes_reasoning_ |= has_reasoning_of(1, rendered);
            if (more != reasoning) find_end_of_calls(rendered);
        } catch (const Error&) {  // the template refuses the chat
        }
    }
}

/// The first special token behind a byte of an answer that the template does not write for a later message.
std::optional<int32_t> ChatRenderer::end_behind(const jinja::Rendered& rendered, size_t byte) const {
    const auto& runs = rendered.text.runs();
    const auto run_at = [&](size_t at) {
        return std::ranges::upper_bound(runs, at, {}, [](const jinja::Run& run) { return run.end; });
    };
    const size_t answer = rendered.origin(*run_at(byte)).message;
    for (const SplitPart& part : tokenizer_->split(rendered.text.bytes(), {}).parts) {
        if (part.id < 0 || part.bytes.begin <= byte) continue;
        const size_t message = rendered.origin(*run_at(part.bytes.begin)).message;
        if (message == answer || message == jinja::Origin::kNoMessage) return part.id;
        return std::nullopt;
    }
    return std::nullopt;
}

void ChatRenderer::find_spelled_out(const std::string& text) {
    for (const SplitPart& part : tokenizer_->split(text, {}).parts) {
        if (part.id >= 0 || template_->spells_roles()) continue;
        const std::string_view between = std::string_view(text).substr(part.bytes.begin, part.bytes.size());
        for (const auto& [open, close] : {std::pair<std::string_view, std::string_view>{"<|", "|>"},
                                          {"<\uFF5C", "\uFF5C>"},
                                          {"<start_of", ">"},
                                          {"<end_of", ">"}})
            for (size_t begin = 0; (begin = between.find(open, begin)) != between.npos; begin += open.size()) {
                const size_t end = between.find(close, begin + open.size());
                if (end == between.npos || end - begin > 40) break;
                const std::string marker(between.substr(begin, end + close.size() - begin));
                if (marker.find_first_of(" \n") == marker.npos &&
                    std::ranges::find(spelled_out_, marker) == spelled_out_.end())
                    spelled_out_.push_back(marker);
            }
    }
}

RenderedChat ChatRenderer::render(const Chat& chat, const std::string& where) const {
    if (chat.messages.empty()) fail(Exit::data, "{}: the chat has no messages", where);
    if (chat.generation_prompt && !chat.unchecked && chat.messages.back().role == "assistant")
        fail(Exit::data, "{}: the last message is from role 'assistant'; expected a message to answer", where);
    const Json variables = variables_of(chat);
    const jinja::Rendered rendered = template_->render(variables, !variables["tools"].is_null(), where);
    if (const auto loss = chat.unchecked ? std::nullopt : first_loss(chat, rendered, writes_reasoning_))
        fail(Exit::data,
             "{}: the chat template {} leaves out {}; choose a template that writes it (chat_template: a built-in "
             "name, a Jinja file or text), or drop it from the row",
             where, template_->name(), *loss);
    RenderedChat result{.text = rendered.text.bytes(), .parts = {}};
    for (const jinja::Run& run : rendered.text.runs()) {
        const jinja::Origin& origin = rendered.origin(run);
        const bool content = origin.input && origin.message < chat.messages.size() && origin.field != "role";
        result.parts.push_back(
            {run.end, content ? Kind::content : Kind::scaffold, origin.message, is_from_row(origin)});
    }
    for (const jinja::Turn& turn : jinja::assistant_turns(rendered, variables["messages"], marks_)) {
        size_t end_marker = turn.whole.end;  // the turn ends with one of the end markers, or with its last part
        for (const std::string& marker : marks_.end_markers)
            if (std::string_view(result.text).substr(0, turn.whole.end).ends_with(marker) &&
                turn.whole.size() >= marker.size())
                end_marker = std::min(end_marker, turn.whole.end - marker.size());
        paint_turn(result, turn, end_marker);
    }
    paint_other_ends(result, chat.messages, marks_.end_markers);
    if (template_->has_generation()) keep_generation(result, rendered, chat.messages, marks_.end_markers);
    return result;
}

}  // namespace colonnade
