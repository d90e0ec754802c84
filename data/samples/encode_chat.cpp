// Encoder for chats: from rendered segments to tokens and loss mask.

#include <algorithm>

#include "data/samples/encode.h"

namespace colonnade {

/// Renders a chat with every role to find the markers that the template uses and those that the tokenizer has.
void Encoder::find_markers() {
    const std::vector<Message> chat = {{"system", "s", {}}, {"user", "u", {}}, {"assistant", "a", {}}};
    const std::vector<Segment> segments = render_chat(options_.chat_template, chat, false, "template");
    if (!tokenizer_) return;
    for (const Segment& segment : segments) {
        const std::optional<int32_t> id = special_id(segment);
        if (segment.kind == Segment::Kind::marker) {
            if (id && std::find(marker_ids_.begin(), marker_ids_.end(), *id) == marker_ids_.end())
                marker_ids_.push_back(*id);
            if (!id && std::find(spelled_out_.begin(), spelled_out_.end(), segment.text) == spelled_out_.end())
                spelled_out_.push_back(segment.text);
        }
        if (segment.part == Segment::Part::end && segment.message == 2) end_marker_ = id;
    }
}

/// The one token that stands for a segment; nothing if the segment is tokenised as text or left out.
std::optional<int32_t> Encoder::special_id(const Segment& segment) const {
    switch (segment.kind) {
        case Segment::Kind::text:
            return std::nullopt;
        case Segment::Kind::marker:
            return tokenizer_->piece_id(segment.text);
        case Segment::Kind::eos:
            return eos_;
        case Segment::Kind::bos:
            break;
    }
    const std::optional<int32_t> named = segment.text.empty() ? std::nullopt : tokenizer_->piece_id(segment.text);
    return named ? named : bos_;
}

std::vector<bool> Encoder::trained_messages(const Row& row) const {
    std::vector<bool> trained;
    for (size_t i = 0; i < row.messages.size(); ++i) {
        const Message& message = row.messages[i];
        const bool is_answer =
            static_cast<int64_t>(i) >= row.prompt_messages && options_.roles_to_train.count(message.role) > 0;
        trained.push_back(message.train.value_or(options_.train_on_prompt || is_answer));
    }
    if (options_.mask_history) {
        const auto last = std::find(trained.rbegin(), trained.rend(), true);
        if (last != trained.rend()) std::fill(std::next(last), trained.rend(), false);
    }
    return trained;
}

/// Loss mask of one segment. `last_end`: it is the end of the last message.
bool Encoder::trains_on(const Segment& segment, bool trained_message, bool last_end) const {
    switch (segment.part) {
        case Segment::Part::scaffold:
            return options_.train_on_prompt && trained_message;
        case Segment::Part::content:
            return trained_message;
        case Segment::Part::end:
            break;
    }
    switch (options_.train_on_eos) {
        case TrainOnEos::turn:
            return trained_message;
        case TrainOnEos::all:
            return true;
        case TrainOnEos::last:
            return last_end;
        case TrainOnEos::none:
            break;
    }
    return false;
}

TokenDraft Encoder::draft_chat(const Row& row, const std::string& where, WordCache* words) const {
    const std::vector<Segment> segments = render_chat(options_.chat_template, row.messages, false, where);
    const std::vector<bool> trained_message = trained_messages(row);
    size_t last_end = segments.size();
    for (size_t i = 0; i < segments.size(); ++i)
        if (segments[i].part == Segment::Part::end) last_end = i;

    std::vector<bool> trained;
    for (size_t i = 0; i < segments.size(); ++i)
        trained.push_back(trains_on(segments[i], trained_message[segments[i].message], i == last_end));
    TokenDraft draft{.words = words};
    append_chat(draft, row.messages, segments, trained);
    for (size_t i = 0; i < row.messages.size(); ++i)
        draft.notes.add_if(!end_marker_ && trained_message[i] && row.messages[i].role == "assistant",
                           RowNote::no_end_token);
    return draft;
}

/// `trained` has one entry per segment. Adjacent texts are tokenised as one text if both or neither are trained on, and
/// both or neither are an assistant's content.
void Encoder::append_chat(TokenDraft& draft, const std::vector<Message>& messages, const std::vector<Segment>& segments,
                          const std::vector<bool>& trained) const {
    struct Run {
        std::string text;
        bool trained = false, answer = false;
    } run;
    bool dummy_prefix = true;
    const auto flush = [&] {
        if (run.text.empty()) return;
        append_text(draft, run.text, dummy_prefix, run.trained);
        dummy_prefix = false;
        run.text.clear();
    };
    for (size_t i = 0; i < segments.size(); ++i) {
        const Segment& segment = segments[i];
        if (const std::optional<int32_t> id = special_id(segment)) {
            flush();
            draft.append(*id, trained[i]);
            // The plain template is bare text after BOS; like any text, it starts with the model's dummy space.
            dummy_prefix = options_.chat_template == "plain" && i == 0;
        } else if (segment.kind == Segment::Kind::text || segment.kind == Segment::Kind::marker) {
            const bool answer = segment.part == Segment::Part::content && messages[segment.message].role == "assistant";
            if (trained[i] != run.trained || answer != run.answer) flush();
            run = {run.text + segment.text, trained[i], answer};
        }
    }
    flush();
}

}  // namespace colonnade
