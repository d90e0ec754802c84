#include "data/samples/encode.h"

#include <algorithm>

#include "data/samples/join_branches.h"
#include "engine/device/error.h"

namespace colonnade {

/// A sample in the making.
struct Encoder::Draft {
    std::vector<int32_t> tokens{};
    std::vector<float> weights{};
    WordCache* words = nullptr;
    bool no_end_token = false, double_bos = false, marker_in_text = false;

    void append(int32_t id, bool learned) {
        tokens.push_back(id);
        weights.push_back(learned ? 1.0f : 0.0f);
    }
};

Encoder::Encoder(std::shared_ptr<const Tokenizer> tokenizer, EncodeOptions options)
    : tokenizer_(std::move(tokenizer)), options_(std::move(options)) {
    if (options_.max_length < 2) fail(Exit::config, "max_length {}; expected at least 2", options_.max_length);
    if (options_.train_on_prompt && options_.mask_history)
        fail(Exit::config,
             "train_on_prompt and mask_history contradict each other: one learns every turn, the other only the last");
    if (tokenizer_ && options_.vocab_size == 0) options_.vocab_size = tokenizer_->vocab_size();
    if (tokenizer_ && tokenizer_->vocab_size() > options_.vocab_size)
        fail(Exit::config, "{}: {} pieces; expected at most the model's vocabulary of {}", tokenizer_->path(),
             tokenizer_->vocab_size(), options_.vocab_size);
    if (tokenizer_) {
        bos_ = tokenizer_->bos();
        eos_ = tokenizer_->eos();
    }
    learn_markers();
}

/// Renders a chat with everything in it to see which markers the template uses and which of them the tokenizer has.
void Encoder::learn_markers() {
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

void Encoder::append_text(Draft& draft, const std::string& text, bool dummy_prefix, bool learned) const {
    for (const int32_t id : tokenizer_->encode(text, dummy_prefix, draft.words)) {
        draft.marker_in_text |= std::find(marker_ids_.begin(), marker_ids_.end(), id) != marker_ids_.end();
        draft.append(id, learned);
    }
}

/// `learned` has one entry per segment. Texts that meet are encoded as one while they agree in being learned and in
/// being an answer of the assistant.
void Encoder::append_chat(Draft& draft, const std::vector<Message>& messages, const std::vector<Segment>& segments,
                          const std::vector<bool>& learned) const {
    struct Run {
        std::string text;
        bool learned = false, answer = false;
    } run;
    bool dummy_prefix = true;
    const auto flush = [&] {
        if (run.text.empty()) return;
        append_text(draft, run.text, dummy_prefix, run.learned);
        dummy_prefix = false;
        run.text.clear();
    };
    for (size_t i = 0; i < segments.size(); ++i) {
        const Segment& segment = segments[i];
        if (const std::optional<int32_t> id = special_id(segment)) {
            flush();
            draft.append(*id, learned[i]);
            // The plain template is bare text behind BOS, which opens with the model's dummy space like any other text.
            dummy_prefix = options_.chat_template == "plain" && i == 0;
        } else if (segment.kind == Segment::Kind::text || segment.kind == Segment::Kind::marker) {
            const bool answer = segment.part == Segment::Part::content && messages[segment.message].role == "assistant";
            if (learned[i] != run.learned || answer != run.answer) flush();
            run = {run.text + segment.text, learned[i], answer};
        }
    }
    flush();
}

std::vector<bool> Encoder::learned_messages(const Row& row) const {
    std::vector<bool> learned;
    for (size_t i = 0; i < row.messages.size(); ++i) {
        const Message& message = row.messages[i];
        const bool is_answer =
            static_cast<int64_t>(i) >= row.prompt_messages && options_.roles_to_train.count(message.role) > 0;
        learned.push_back(message.train.value_or(options_.train_on_prompt || is_answer));
    }
    if (options_.mask_history) {
        const auto last = std::find(learned.rbegin(), learned.rend(), true);
        if (last != learned.rend()) std::fill(std::next(last), learned.rend(), false);
    }
    return learned;
}

Encoder::Draft Encoder::draft_chat(const Row& row, const std::string& where, WordCache* words) const {
    const std::vector<Segment> segments = render_chat(options_.chat_template, row.messages, false, where);
    const std::vector<bool> messages = learned_messages(row);
    size_t last_end = segments.size();
    for (size_t i = 0; i < segments.size(); ++i)
        if (segments[i].part == Segment::Part::end) last_end = i;

    std::vector<bool> learned;
    for (size_t i = 0; i < segments.size(); ++i) {
        const bool of_learned_message = messages[segments[i].message];
        switch (segments[i].part) {
            case Segment::Part::scaffold:
                learned.push_back(options_.train_on_prompt && of_learned_message);
                break;
            case Segment::Part::content:
                learned.push_back(of_learned_message);
                break;
            case Segment::Part::end:
                learned.push_back(options_.train_on_eos == TrainOnEos::all ||
                                  (options_.train_on_eos == TrainOnEos::turn && of_learned_message) ||
                                  (options_.train_on_eos == TrainOnEos::last && i == last_end));
                break;
        }
    }
    Draft draft{.words = words};
    append_chat(draft, row.messages, segments, learned);
    for (size_t i = 0; i < messages.size(); ++i)
        draft.no_end_token |= !end_marker_ && messages[i] && row.messages[i].role == "assistant";
    return draft;
}

Encoder::Draft Encoder::draft_plain(const Row& row, WordCache* words) const {
    Draft draft{.words = words};
    const std::string prompt = row.prompt.value_or(""), &completion = *row.completion;
    if (options_.add_bos && bos_) {
        draft.append(*bos_, false);
        draft.double_bos = (prompt.empty() ? completion : prompt).starts_with(tokenizer_->piece(*bos_));
    }
    append_text(draft, prompt, true, options_.train_on_prompt);
    append_text(draft, completion, prompt.empty(), true);
    draft.no_end_token = !options_.add_eos || !eos_;
    if (!draft.no_end_token) draft.append(*eos_, options_.train_on_eos != TrainOnEos::none);
    return draft;
}

Encoder::Draft Encoder::draft_tokens(const Row& row, const std::string& where) const {
    Draft draft;
    int32_t last_learned = -1;
    for (size_t i = 0; i < row.input_ids.size(); ++i) {
        const int32_t id = row.input_ids[i], label = row.labels[i];
        if (id < 0 || (options_.vocab_size > 0 && id >= options_.vocab_size))
            fail(Exit::data, "{}: input_ids[{}] is {}; expected 0 to {}", where, i, id, options_.vocab_size - 1);
        if (label != id && label != -100)
            fail(Exit::data,
                 "{}: labels[{}] is {}; expected -100 or {}, the input id at the same place (labels are not shifted)",
                 where, i, label, id);
        draft.append(id, label == id);
        if (label == id) last_learned = id;
    }
    const std::vector<int32_t> ends = stop_ids();
    draft.no_end_token =
        !ends.empty() && last_learned >= 0 && std::find(ends.begin(), ends.end(), last_learned) == ends.end();
    return draft;
}

Encoder::Draft Encoder::draft(const Row& row, const std::string& where, WordCache* words) const {
    if (!tokenizer_ && row.input_ids.empty())
        fail(Exit::config,
             "{}: a row of text needs a tokenizer (tokenizer.model); without one only rows of input_ids can be read",
             where);
    Draft draft = !row.input_ids.empty()  ? draft_tokens(row, where)
                  : !row.messages.empty() ? draft_chat(row, where, words)
                                          : draft_plain(row, words);
    const std::vector<int32_t>& tokens = draft.tokens;
    draft.double_bos |= tokens.size() > 1 && tokens[0] == bos_ && tokens[1] == bos_;
    return draft;
}

/// The learned tokens of a branch are end tokens and white space, whole or as bytes.
bool Encoder::reads_empty(const Sample& sample, size_t branch) const {
    const std::vector<int32_t> ends = stop_ids();
    const auto& begins = sample.branch_begins;
    const size_t end = branch + 1 < begins.size() ? static_cast<size_t>(begins[branch + 1]) : sample.tokens.size();
    for (auto i = static_cast<size_t>(begins[branch]); i < end; ++i) {
        const int32_t id = sample.tokens[i];
        if (sample.weights[i] == 0 || std::ranges::find(ends, id) != ends.end()) continue;
        if (!tokenizer_) return false;
        std::string piece = tokenizer_->piece(id);
        for (const char* blank : {"\u2581", "<0x0A>", "<0x0D>", "<0x09>", "<0x20>"})
            for (size_t at; (at = piece.find(blank)) != std::string::npos;) piece.erase(at, std::string(blank).size());
        if (piece.find_first_not_of(" \t\r\n") != std::string::npos) return false;
    }
    return true;
}

Encoded Encoder::encode_preference(const Row& row, const std::string& where, WordCache* words) const {
    const auto answers = static_cast<int64_t>(row.answers.size());
    if (options_.max_answers > 0 && answers > options_.max_answers)
        fail(Exit::data, "{}: {} answers; expected {}: rankings of more are for reward models (stage rm)", where,
             answers, options_.max_answers);
    std::vector<Whole> wholes;
    Draft told;
    bool no_message_shared = false;
    for (const Row& answer : row.answers) {
        Draft each = draft(answer, where, words);
        told.no_end_token |= each.no_end_token;
        told.double_bos |= each.double_bos;
        told.marker_in_text |= each.marker_in_text;
        no_message_shared |= !answer.messages.empty() && answer.prompt_messages == 0;
        wholes.push_back({std::move(each.tokens), std::move(each.weights)});
    }
    Encoded result = join_branches(std::move(wholes), row.whole_answers, options_, where);
    result.no_end_token = told.no_end_token;
    result.double_bos = told.double_bos;
    result.marker_in_text = told.marker_in_text;
    Sample& sample = result.sample;
    sample.margin = row.margin;
    for (size_t branch = 0; branch < sample.branch_begins.size(); ++branch)
        result.empty_answer |= reads_empty(sample, branch);
    const int32_t stem = sample.branch_begins.empty() ? 0 : sample.branch_begins[0];
    result.no_prompt = no_message_shared || stem == 0 || (stem == 1 && sample.tokens[0] == bos_);
    return result;
}

Encoded Encoder::encode(const Row& row, const std::string& where, WordCache* words) const {
    if (!row.answers.empty()) return encode_preference(row, where, words);
    Draft draft = this->draft(row, where, words);
    std::vector<int32_t>& tokens = draft.tokens;
    std::vector<float>& weights = draft.weights;

    Encoded result;
    result.full_length = static_cast<int64_t>(tokens.size());
    result.no_end_token = draft.no_end_token;
    result.marker_in_text = draft.marker_in_text;
    result.double_bos = draft.double_bos;

    if (result.full_length > options_.max_length) {
        if (options_.excess_length == ExcessLength::error)
            fail(Exit::data, "{}: the row has {} tokens; expected at most max_length {}", where, result.full_length,
                 options_.max_length);
        if (options_.excess_length == ExcessLength::drop) {
            result.outcome = Encoded::Outcome::dropped_too_long;
            return result;
        }
        result.outcome = Encoded::Outcome::truncated;
        tokens.resize(static_cast<size_t>(options_.max_length));
        weights.resize(tokens.size());
    }
    if (!weights.empty()) weights[0] = 0;
    if (std::find(weights.begin(), weights.end(), 1.0f) == weights.end()) {
        result.outcome = Encoded::Outcome::dropped_nothing_learned;
        return result;
    }
    result.sample = {std::move(tokens), std::move(weights), {0}};
    return result;
}

std::vector<int32_t> Encoder::encode_prompt(const std::vector<Message>& messages) const {
    if (!tokenizer_) fail(Exit::config, "a prompt of text needs a tokenizer (tokenizer.model)");
    const std::vector<Segment> segments = render_chat(options_.chat_template, messages, true, "prompt");
    Draft draft;
    append_chat(draft, messages, segments, std::vector<bool>(segments.size(), false));
    return draft.tokens;
}

std::vector<int32_t> Encoder::stop_ids() const {
    std::vector<int32_t> ids;
    if (end_marker_) ids.push_back(*end_marker_);
    if (eos_ && eos_ != end_marker_) ids.push_back(*eos_);
    return ids;
}

}  // namespace colonnade
