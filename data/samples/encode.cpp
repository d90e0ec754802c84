#include "data/samples/encode.h"

#include <algorithm>

#include "data/samples/answer_notes.h"
#include "engine/device/error.h"

namespace colonnade {

Encoder::Encoder(std::shared_ptr<const Tokenizer> tokenizer, EncodeOptions options)
    : tokenizer_(std::move(tokenizer)), options_(std::move(options)) {
    if (options_.max_length < 2) fail(Exit::config, "max_length {}; expected at least 2", options_.max_length);
    if (options_.train_on_prompt && options_.mask_history)
        fail(Exit::config,
             "train_on_prompt and mask_history contradict each other: one trains on every turn, the other only on the "
             "last");
    if (tokenizer_ && options_.vocab_size == 0) options_.vocab_size = tokenizer_->vocab_size();
    if (tokenizer_ && tokenizer_->vocab_size() > options_.vocab_size)
        fail(Exit::config, "{}: {} pieces; expected at most the model's vocabulary of {}", tokenizer_->path(),
             tokenizer_->vocab_size(), options_.vocab_size);
    if (tokenizer_) {
        bos_ = tokenizer_->bos();
        eos_ = tokenizer_->eos();
    }
    find_markers();
}

Encoded Encoder::encode(const Row& row, const std::string& where, WordCache* words) const {
    if (!row.answers.empty()) return encode_preference(row, where, words);
    auto [tokens, weights, notes, cache] = draft(row, where, words);
    Encoded result{.sample = {}, .full_length = static_cast<int64_t>(tokens.size()), .notes = notes};
    if (result.full_length > options_.max_length) {
        if (options_.excess_length == ExcessLength::error)
            fail(Exit::data, "{}: the row has {} tokens; expected at most max_length {}", where, result.full_length,
                 options_.max_length);
        if (options_.excess_length == ExcessLength::drop) {
            result.notes.add(RowNote::dropped_too_long);
            return result;
        }
        result.notes.add(RowNote::truncated);
        tokens.resize(static_cast<size_t>(options_.max_length));
        weights.resize(tokens.size());
    }
    if (!weights.empty()) weights[0] = 0;
    if (std::find(weights.begin(), weights.end(), 1.0f) == weights.end()) {
        result.notes.add(RowNote::dropped_nothing_learned);
        return result;
    }
    result.sample = {std::move(tokens), std::move(weights), {0}};
    result.notes.add_if(is_empty_answer(result.sample, 0), RowNote::empty_answer);
    return result;
}

TokenDraft Encoder::draft(const Row& row, const std::string& where, WordCache* words) const {
    if (!tokenizer_ && row.input_ids.empty())
        fail(Exit::config,
             "{}: a text row needs a tokenizer (tokenizer.model); without one only rows of input_ids work", where);
    TokenDraft draft = !row.input_ids.empty()  ? draft_tokens(row, where)
                       : !row.messages.empty() ? draft_chat(row, where, words)
                                               : draft_plain(row, words);
    const std::vector<int32_t>& tokens = draft.tokens;
    draft.notes.add(answer_notes(row));
    draft.notes.add_if(tokens.size() > 1 && tokens[0] == bos_ && tokens[1] == bos_, RowNote::double_bos);
    return draft;
}

TokenDraft Encoder::draft_plain(const Row& row, WordCache* words) const {
    TokenDraft draft{.words = words};
    const std::string prompt = row.prompt.value_or(""), &completion = *row.completion;
    if (options_.add_bos && bos_) {
        draft.append(*bos_, false);
        const std::string& text = prompt.empty() ? completion : prompt;
        draft.notes.add_if(text.starts_with(tokenizer_->piece(*bos_)), RowNote::double_bos);
    }
    append_text(draft, prompt, true, options_.train_on_prompt);
    append_text(draft, completion, prompt.empty(), true);
    if (options_.add_eos && eos_)
        draft.append(*eos_, options_.train_on_eos != TrainOnEos::none);
    else
        draft.notes.add(RowNote::no_end_token);
    return draft;
}

TokenDraft Encoder::draft_tokens(const Row& row, const std::string& where) const {
    TokenDraft draft;
    int32_t last_trained = -1;
    for (size_t i = 0; i < row.input_ids.size(); ++i) {
        const int32_t id = row.input_ids[i], label = row.labels[i];
        if (id < 0 || (options_.vocab_size > 0 && id >= options_.vocab_size))
            fail(Exit::data, "{}: input_ids[{}] is {}; expected 0 to {}", where, i, id, options_.vocab_size - 1);
        if (label != id && label != -100)
            fail(Exit::data,
                 "{}: labels[{}] is {}; expected -100 or {}, the input id at the same index (labels are not "
                 "shifted)",
                 where, i, label, id);
        draft.append(id, label == id);
        if (label == id) last_trained = id;
    }
    const std::vector<int32_t> ends = stop_ids();
    draft.notes.add_if(
        !ends.empty() && last_trained >= 0 && std::find(ends.begin(), ends.end(), last_trained) == ends.end(),
        RowNote::no_end_token);
    return draft;
}

void Encoder::append_text(TokenDraft& draft, const std::string& text, bool dummy_prefix, bool trained) const {
    for (const int32_t id : tokenizer_->encode(text, dummy_prefix, draft.words)) {
        draft.notes.add_if(std::find(marker_ids_.begin(), marker_ids_.end(), id) != marker_ids_.end(),
                           RowNote::marker_in_text);
        draft.append(id, trained);
    }
}

std::vector<int32_t> Encoder::encode_prompt(const std::vector<Message>& messages) const {
    if (!tokenizer_) fail(Exit::config, "a text prompt needs a tokenizer (tokenizer.model)");
    const std::vector<Segment> segments = render_chat(options_.chat_template, messages, true, "prompt");
    TokenDraft draft;
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
