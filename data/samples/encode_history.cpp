// Encoder for chats turn by turn: every learned turn behind the prompt that would ask for it.
//
// Many templates rewrite the past. Qwen3, for one, writes the reasoning of answers only behind the last question. A chat
// that is rendered once then lacks the reasoning of all answers but the last, while an answer is generated with its own
// reasoning behind a past without any. So each learned turn becomes a sequence of its own, made as inference makes it:
//
//   prompt   messages before the turn, rendered with the generation prompt and tokenised
//   answer   what the template writes behind the prompt when it renders the messages up to the turn, tokenised by itself
//
// Only the answer is learned: nothing that the generation prompt writes, an empty think block included. Sequences of a
// chat have most of their tokens in common; front_code() stores and computes those once.
//
// A turn here is a trained answer with the messages between it and the trained answer before it. Trained messages of
// other roles are learned in the turn that they belong to; those behind the last trained answer make a turn without one.

#include <algorithm>
#include <utility>

#include "data/samples/encode.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

using Kind = ChatPart::Kind;

constexpr size_t most_rendered = size_t{128} << 20;  ///< bytes of all renderings of a row
constexpr size_t rendered_message_bytes = 512;       ///< what rendering a message costs beside its text
constexpr size_t longest_token = 256;                ///< bytes of the longest added token, with room to spare

/// Byte behind the last part of a message that is not the template's text around it; 0 if there is none.
size_t end_of_message(const RenderedChat& chat, size_t message) {
    for (size_t i = chat.parts.size(); i-- > 0;)
        if (chat.parts[i].message == message && chat.parts[i].kind != Kind::scaffold) return chat.parts[i].end;
    return 0;
}

bool is_learned(float weight) {
    return weight > 0;
}

/// The text around a byte, for a message.
std::string excerpt(const std::string& text, size_t byte) {
    constexpr size_t before = 20, length = 50;
    const size_t begin = byte - std::min(byte, before);
    return Json(replace_ill_formed(text.substr(begin, length))).dump();
}

}  // namespace

class Encoder::TurnByTurn {
  public:
    TurnByTurn(const Encoder& encoder, const Row& row, const std::string& where, TokenCache& cache)
        : encoder_(encoder), row_(row), where_(where), cache_(cache), weights_(encoder.message_weights(row)) {
        size_t begin = 0;
        for (size_t i = 0; i < weights_.size(); ++i)
            if (weights_[i] > 0 && is_answer(i)) turns_.push_back({std::exchange(begin, i + 1), i + 1});
        const auto last = std::find_if(weights_.rbegin(), weights_.rend(), is_learned);
        const auto end = static_cast<size_t>(weights_.rend() - last);
        if (end > begin) turns_.push_back({begin, end});
    }

    size_t turns() const { return turns_.size(); }

    /// Whether one rendering of the whole chat has every turn as it would be rendered last.
    bool keeps_past() {
        const size_t all = row_.messages.size();
        if (turns_.empty() || turns_.front().end == all || encoder_.reads_forward_) return true;
        const RenderedChat once = render(all, {});
        for (const Turn& turn : turns_) {
            if (turn.end == all) break;
            const RenderedChat last = render(turn.end, {.unchecked = true});
            const size_t end = end_of_message(last, turn.end - 1);
            if (last.text.compare(0, end, once.text, 0, end) != 0) return false;
        }
        return true;
    }

    TokenDraft draft(size_t number) {
        const Turn& turn = turns_[number];
        const RenderedChat whole = render(turn.end, {});
        TokenDraft draft;
        ChatTokens state;
        if (is_answer(turn.end - 1) && turn.end > 1) {
            RenderedChat prompt = render(turn.end - 1, {.generation_prompt = true, .unchecked = true});
            if (!whole.text.starts_with(prompt.text)) refuse(turn, prompt.text, whole.text);
            append_prompt(std::move(prompt), turn);
            draft = prompt_draft_;
            state = {prompt_state_.start, prompt_state_.bytes, {}};
        }
        Tail answer = tail(whole, turn, state.bytes);
        if (state.bytes > 0) claim_opening(answer, turn);
        encoder_.append_chat(draft, answer.chat, answer.rules, state, cache_);
        if (!draft.weights.empty()) draft.weights[0] = 0;
        encoder_.finish(draft, row_);
        draft.notes.add_if(!encoder_.renderer_->end_token() && is_answer(turn.end - 1), RowNote::no_end_token);
        return draft;
    }

    /// Applies max_length. False if the turn is left out, or teaches nothing.
    bool fit(size_t number, TokenDraft& draft, Encoded& result) const {
        const EncodeOptions& options = encoder_.options_;
        const auto length = static_cast<int64_t>(draft.tokens.size());
        result.full_length = std::max(result.full_length, length);
        const auto learns = [&] { return std::ranges::any_of(draft.weights, is_learned); };
        if (length <= options.max_length) return learns();
        if (options.excess_length == ExcessLength::error)
            fail(Exit::data, "{}: message {} has {} tokens with those before it; expected at most max_length {}",
                 where_, turns_[number].end - 1, length, options.max_length);
        if (options.excess_length == ExcessLength::truncate) {
            draft.tokens.resize(static_cast<size_t>(options.max_length));
            draft.weights.resize(draft.tokens.size());
        }
        const bool kept = options.excess_length == ExcessLength::truncate && learns();
        result.notes.add(kept ? RowNote::truncated : RowNote::turns_left_out);
        return kept;
    }

  private:
    /// Messages [begin, end); the answer is the last of them.
    struct Turn {
        size_t begin, end;
    };
    /// A chat and its rules from a byte on.
    struct Tail {
        RenderedChat chat;
        std::vector<PartRule> rules;
    };
    struct RenderOptions {
        bool generation_prompt = false, unchecked = false;
    };

    bool is_answer(size_t message) const { return row_.messages[message].role == "assistant"; }

    /// Renders the first messages.
    RenderedChat render(size_t messages, RenderOptions options) {
        RenderedChat chat = encoder_.renderer_->render(
            {std::span(row_.messages).first(messages), row_.variables, options.generation_prompt, options.unchecked},
            where_);
        rendered_ += chat.text.size() + messages * rendered_message_bytes;
        if (rendered_ > most_rendered)
            fail(Exit::data,
                 "{}: {} turns, each rendered with the messages before it, have more than {} MiB of text; expected "
                 "fewer: divide the chat, or set history: as_rendered",
                 where_, turns_.size(), most_rendered >> 20);
        return chat;
    }

    /// Cuts of tokens are those of the whole chat, so that turns share tokens; what is learned is the turn's.
    std::vector<PartRule> rules_of(const RenderedChat& chat, const Turn& turn) const {
        std::vector<PartRule> rules = encoder_.part_rules(chat, row_, weights_);
        const bool last_end_only = encoder_.options_.train_on_eos == TrainOnEos::last;
        for (size_t i = 0; i < rules.size(); ++i) {
            const ChatPart& part = chat.parts[i];
            const bool of_turn = part.message >= turn.begin && part.message < turn.end;
            const bool is_last = part.message + 1 == turn.end && turn.end == turns_.back().end;
            rules[i].learned &= of_turn && (part.kind != Kind::end || !last_end_only || is_last);
        }
        return rules;
    }

    Tail tail(const RenderedChat& chat, const Turn& turn, size_t byte) const {
        const std::vector<PartRule> rules = rules_of(chat, turn);
        Tail tail{{chat.text.substr(byte), {}}, {}};
        for (size_t i = 0; i < chat.parts.size(); ++i) {
            if (chat.parts[i].end <= byte) continue;
            tail.chat.parts.push_back(chat.parts[i]);
            tail.chat.parts.back().end -= byte;
            tail.rules.push_back(rules[i]);
        }
        return tail;
    }

    /// Text of the template between the generation prompt and the answer is generated too, unless {% generation %} says
    /// otherwise.
    void claim_opening(Tail& answer, const Turn& turn) const {
        if (encoder_.chat_template().has_generation()) return;
        const auto first = std::ranges::find_if(answer.chat.parts, [&](const ChatPart& part) {
            return part.message == turn.end - 1 && part.kind != Kind::scaffold;
        });
        if (first == answer.chat.parts.end()) return;
        const auto count = first - answer.chat.parts.begin();
        std::fill_n(answer.rules.begin(), count, answer.rules[static_cast<size_t>(count)]);
    }

    /// Tokenises a prompt. Tokens of the text that it begins with as the prompt before it are taken from there.
    void append_prompt(RenderedChat chat, const Turn& turn) {
        const size_t common = common_text(chat);
        std::vector<ChatTokens::Cut>& cuts = prompt_state_.cuts;
        while (!cuts.empty() && cuts.back().byte + longest_token > common) cuts.pop_back();
        const ChatTokens::Cut kept = cuts.empty() ? ChatTokens::Cut{0, 0} : cuts.back();
        prompt_draft_.tokens.resize(kept.tokens);
        prompt_draft_.weights.assign(kept.tokens, 0.0f);  // they belong to earlier turns
        prompt_state_.start = cuts.empty() ? TextStart::document : TextStart::behind_token;
        prompt_state_.bytes = kept.byte;
        const Tail more = tail(chat, turn, kept.byte);
        encoder_.append_chat(prompt_draft_, more.chat, more.rules, prompt_state_, cache_);
        prompt_ = std::move(chat);
    }

    /// Bytes that a chat begins with as the prompt before it does, in parts that are equal.
    size_t common_text(const RenderedChat& chat) const {
        const auto text = std::ranges::mismatch(chat.text, prompt_.text).in1 - chat.text.begin();
        const auto part = std::ranges::mismatch(chat.parts, prompt_.parts).in1 - chat.parts.begin();
        return part == 0 ? 0 : std::min(static_cast<size_t>(text), chat.parts[static_cast<size_t>(part) - 1].end);
    }

    [[noreturn]] void refuse(const Turn& turn, const std::string& prompt, const std::string& whole) const {
        const auto byte = static_cast<size_t>(std::ranges::mismatch(prompt, whole).in1 - prompt.begin());
        fail(
            Exit::data,
            "{}: message {} is not written as it would be generated: the chat template {} asks for it with {} and then "
            "writes {}; expected an answer that begins as the generation prompt ends: give it the reasoning that the "
            "template opens, set enable_thinking to fit the row, or set history: as_rendered",
            where_, turn.end - 1, encoder_.chat_template().name(), excerpt(prompt, byte), excerpt(whole, byte));
    }

    const Encoder& encoder_;
    const Row& row_;
    const std::string& where_;
    TokenCache& cache_;
    std::vector<float> weights_;  ///< of the messages
    std::vector<Turn> turns_;
    size_t rendered_ = 0;
    // The prompt before, and its tokens.
    RenderedChat prompt_;
    TokenDraft prompt_draft_;
    ChatTokens prompt_state_;
};

std::optional<std::vector<TokenDraft>> Encoder::encode_turns(const Row& row, const std::string& where,
                                                             TokenCache& cache, Encoded& result) const {
    if (options_.history == History::as_rendered || options_.train_on_prompt || row.messages.empty() || !tokenizer_)
        return std::nullopt;
    check_markers(where);
    TurnByTurn chat(*this, row, where, cache);
    const bool automatic = options_.history == History::automatic;
    const auto is_exact = [&](auto&& work) {
        try {
            work();
            return true;
        } catch (const Error& error) {
            if (!automatic || error.exit() != Exit::data) throw;
            result.notes.add(RowNote::history_not_exact);
            return false;
        }
    };
    bool one_sequence = chat.turns() == 0;
    if (automatic && !is_exact([&] { one_sequence = chat.keeps_past(); })) return std::nullopt;
    if (one_sequence) return std::nullopt;

    Encoded made;
    std::vector<TokenDraft> drafts;
    for (size_t i = 0; i < chat.turns(); ++i) {
        TokenDraft draft;
        if (!is_exact([&] { draft = chat.draft(i); })) return std::nullopt;
        made.notes.add(draft.notes);
        if (chat.fit(i, draft, made)) drafts.push_back(std::move(draft));
    }
    const bool too_long = made.notes.has(RowNote::turns_left_out) && options_.excess_length == ExcessLength::drop;
    made.notes.add(!drafts.empty() ? RowNote::per_turn
                   : too_long      ? RowNote::dropped_too_long
                                   : RowNote::dropped_nothing_learned);
    result = made;
    return drafts;
}

TokenDraft Encoder::draft_answer(const Row& row, const std::string& where, TokenCache& cache) const {
    if (options_.history == History::as_rendered || row.messages.empty() || !tokenizer_)
        return draft(row, where, cache);
    check_markers(where);
    TurnByTurn chat(*this, row, where, cache);
    bool exact = chat.turns() == 1;
    try {
        if (exact) return chat.draft(0);
        exact = chat.keeps_past();
    } catch (const Error& error) {
        if (error.exit() != Exit::data) throw;
        exact = false;
    }
    TokenDraft once = draft(row, where, cache);
    once.notes.add_if(!exact, RowNote::history_not_exact);
    return once;
}

}  // namespace colonnade
