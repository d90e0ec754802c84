// Encoder for chats: from rendered text to tokens and loss mask.

#include <algorithm>

#include <fmt/ranges.h>

#include "data/samples/encode.h"
#include "data/samples/turn_markers.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

using Kind = ChatPart::Kind;

/// Texts of rows, touching ones joined.
std::vector<Span> row_spans(const RenderedChat& chat) {
    std::vector<Span> spans;
    size_t begin = 0;
    for (const ChatPart& part : chat.parts) {
        if (part.from_row && !spans.empty() && spans.back().end == begin)
            spans.back().end = part.end;
        else if (part.from_row)
            spans.push_back({begin, part.end});
        begin = part.end;
    }
    return spans;
}

std::string_view trimmed(std::string_view text) {
    const size_t begin = std::min(text.find_first_not_of(" \t\r\n"), text.size());
    return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

/// Ends a chat behind the content of its last message, and divides that content: the first bytes of it are given.
/// Returns the end of those in the text. A template may trim a content; it may change nothing else of it.
size_t end_behind_given(RenderedChat& chat, const Row& row, const ChatTemplate& chat_template,
                        const std::string& where) {
    const std::string& content = row.messages.back().content;
    const std::string_view inner = trimmed(content);
    if (inner.empty()) return chat.text.size();  // nothing is learned
    const auto of_row = std::ranges::find_if(
        chat.parts, [&](const ChatPart& part) { return part.from_row && part.message + 1 == row.messages.size(); });
    const size_t begin = of_row == chat.parts.begin() || of_row == chat.parts.end() ? 0 : std::prev(of_row)->end;
    const std::string_view written = std::string_view(chat.text).substr(begin);
    const bool whole = written.starts_with(content);
    if (!whole && !written.starts_with(inner))
        fail(Exit::data,
             "{}: the chat template {} does not write the text of an answer as it is, which an answer that goes on "
             "needs; expected another chat_template",
             where, chat_template.name());
    const size_t skipped = whole ? 0 : static_cast<size_t>(inner.data() - content.data());
    const size_t end = begin + (whole ? content.size() : inner.size());
    const size_t learned = std::min(begin + *row.given - std::min(*row.given, skipped), end);
    const auto end_of = [](const ChatPart& part) { return part.end; };
    chat.text.resize(end);
    chat.parts.erase(std::ranges::lower_bound(chat.parts, end, {}, end_of) + 1, chat.parts.end());
    chat.parts.back().end = end;
    const auto divided = std::ranges::lower_bound(chat.parts, learned, {}, end_of);
    ChatPart given = *divided;
    given.end = learned;
    chat.parts.insert(divided, given);
    return learned;
}

}  // namespace

/// 0 for messages that are not trained on.
std::vector<float> Encoder::message_weights(const Row& row) const {
    std::vector<float> weights;
    for (size_t i = 0; i < row.messages.size(); ++i) {
        const Message& message = row.messages[i];
        const bool is_answer =
            static_cast<int64_t>(i) >= row.prompt_messages && options_.roles_to_train.count(message.role) > 0;
        weights.push_back(message.weight.value_or(options_.train_on_prompt || is_answer ? 1 : 0));
    }
    if (options_.mask_history) {
        const auto last = std::find_if(weights.rbegin(), weights.rend(), [](float w) { return w > 0; });
        if (last != weights.rend()) std::fill(std::next(last), weights.rend(), 0.0f);
    }
    return weights;
}

/// Weight of one part, before the row's. `last_end`: it is the end of the last message. The end of a message that is
/// not trained on has weight 1 if train_on_eos selects it.
float Encoder::weight_of(const ChatPart& part, const std::vector<float>& message_weights, bool last_end) const {
    const float weight = part.message < message_weights.size() ? message_weights[part.message]
                         : options_.train_on_prompt            ? 1.0f
                                                               : 0.0f;
    switch (part.kind) {
        case Kind::scaffold:
            return options_.train_on_prompt ? weight : 0;
        case Kind::content:
            return weight;
        case Kind::thinking:
            return options_.train_on_thinking ? weight : 0;
        case Kind::tool_calls:
            return options_.train_on_tool_calls ? weight : 0;
        case Kind::end:
            break;
    }
    const float of_end = weight > 0 ? weight : 1;
    switch (options_.train_on_eos) {
        case TrainOnEos::turn:
            return weight;
        case TrainOnEos::all:
            return of_end;
        case TrainOnEos::last:
            return last_end ? of_end : 0;
        case TrainOnEos::none:
            break;
    }
    return 0;
}

std::vector<Encoder::PartRule> Encoder::part_rules(const RenderedChat& chat, const Row& row,
                                                   const std::vector<float>& message_weights) const {
    size_t last_end = chat.parts.size();
    for (size_t i = 0; i < chat.parts.size(); ++i)
        if (chat.parts[i].kind == Kind::end) last_end = i;
    std::vector<PartRule> rules;
    for (size_t i = 0; i < chat.parts.size(); ++i) {
        const ChatPart& part = chat.parts[i];
        const bool of_answer = part.message < row.messages.size() && row.messages[part.message].role == "assistant";
        const float weight = weight_of(part, message_weights, i == last_end);
        rules.push_back({weight, of_answer && part.kind != Kind::scaffold, weight > 0});
    }
    return rules;
}

/// A marker that is spelled in pieces is none that the model knows, and generation does not stop at it.
void Encoder::check_markers(const std::string& where) const {
    const std::vector<std::string>& markers = renderer_->spelled_out();
    // A model's own template may write role names as text. But an answer has to end with a token.
    const bool fits = markers.empty() || (chat_template().is_of_model() && renderer_->end_token());
    if (fits || options_.allow_spelled_out_markers) return;
    std::vector<std::string> fitting;
    for (const std::string& name : chat_template_names())
        if (ChatRenderer(ChatTemplate::built_in(name), tokenizer_, {}).spelled_out().empty()) fitting.push_back(name);
    fail(
        Exit::config,
        "{}: the chat template {} writes {}, which {} does not know as one token; choose a chat_template that fits the "
        "tokenizer (built in: {}; or a Jinja file), or set allow_spelled_out_markers",
        where, chat_template().name(), fmt::join(markers, " "), tokenizer_->path(), fmt::join(fitting, ", "));
}

TokenDraft Encoder::draft_chat(const Row& row, const std::string& where, TokenCache& cache) const {
    check_markers(where);
    RenderedChat chat = renderer_->render({row.messages, row.variables}, where);
    const size_t learned = row.given ? end_behind_given(chat, row, chat_template(), where) : 0;
    TokenDraft draft;
    const std::vector<float> weights = message_weights(row);
    std::vector<PartRule> rules = part_rules(chat, row, weights);
    for (size_t i = 0; i < rules.size() && chat.parts[i].end <= learned; ++i) rules[i].learned = false;
    ChatTokens state;
    append_chat(draft, chat, rules, state, cache);
    for (size_t i = 0; i < row.messages.size(); ++i)
        draft.notes.add_if(!renderer_->end_token() && weights[i] > 0 && row.messages[i].role == "assistant",
                           RowNote::no_end_token);
    return draft;
}

/// Special tokens come out whole; the text between them is cut wherever the rule of its parts changes.
void Encoder::append_chat(TokenDraft& draft, const RenderedChat& chat, const std::vector<PartRule>& rules,
                          ChatTokens& state, TokenCache& cache) const {
    const std::vector<Span> plain = row_spans(chat);
    SplitText split = tokenizer_->split(chat.text, plain);
    draft.notes.add_if(split.spelled_special, RowNote::marker_in_text);
    draft.notes.add_if(
        !split.spelled_special && std::ranges::any_of(plain,
                                                      [&](const Span& span) {
                                                          return has_turn_marker(std::string_view(chat.text).substr(
                                                              span.begin, span.end - span.begin));
                                                      }),
        RowNote::foreign_marker);
    if (split.spelled_special && options_.special_tokens_in_text == Spelled::token)
        split = tokenizer_->split(chat.text, {});
    const std::string_view text = chat.text;
    size_t part = 0;
    const auto go_to = [&](size_t byte) {
        while (part + 1 < chat.parts.size() && chat.parts[part].end <= byte) ++part;
    };
    for (const SplitPart& cut : split.parts) {
        size_t begin = cut.bytes.begin;
        go_to(begin);
        if (cut.id >= 0) {
            draft.append(cut.id, rules[part].learned ? rules[part].weight : 0);
            const bool opens_document = chat_template().is_plain() && state.bytes + begin == 0;
            state.start = opens_document ? TextStart::document : TextStart::behind_token;
            if (!opens_document) state.cuts.push_back({state.bytes + cut.bytes.end, draft.tokens.size()});
            continue;
        }
        while (begin < cut.bytes.end) {
            const PartRule rule = rules[part];
            while (part + 1 < chat.parts.size() && chat.parts[part].end < cut.bytes.end && rules[part + 1] == rule)
                ++part;
            const size_t end = std::min(chat.parts[part].end, cut.bytes.end);
            const size_t first = draft.tokens.size();
            tokenizer_->encode_between(text.substr(begin, end - begin), state.start, cut.spelled, draft.tokens, cache);
            draft.weights.resize(draft.tokens.size(), rule.learned ? rule.weight : 0);
            if (draft.tokens.size() > first) state.start = TextStart::continues;
            begin = end;
            go_to(begin);
        }
    }
    state.bytes += text.size();
}

std::vector<int32_t> Encoder::encode_prompt(const std::vector<Message>& messages) const {
    if (!tokenizer_) fail(Exit::config, "a text prompt needs a tokenizer (tokenizer.json or tokenizer.model)");
    check_markers("prompt");
    const Json no_variables;
    const RenderedChat chat = renderer_->render({messages, no_variables, true}, "prompt");
    TokenDraft draft;
    TokenCache cache;
    std::vector<PartRule> rules;
    for (const ChatPart& part : chat.parts)
        rules.push_back({0, part.message < messages.size() && messages[part.message].role == "assistant" &&
                                part.kind != Kind::scaffold});
    ChatTokens state;
    append_chat(draft, chat, rules, state, cache);
    return draft.tokens;
}

}  // namespace colonnade
