#include "data/samples/encode.h"

#include <algorithm>
#include <iterator>

#include "data/samples/answer_notes.h"
#include "data/samples/join_branches.h"
#include "data/samples/turn_markers.h"
#include "engine/device/error.h"

namespace colonnade {

Encoder::Encoder(std::shared_ptr<const Tokenizer> tokenizer, EncodeOptions options)
    : tokenizer_(std::move(tokenizer)), options_(std::move(options)) {
    if (options_.max_length < 2) fail(Exit::config, "max_length {}; expected at least 2", options_.max_length);
    if (options_.train_on_prompt && options_.mask_history)
        fail(Exit::config,
             "train_on_prompt and mask_history contradict each other: one trains on every turn, the other only on the "
             "last");
    if (options_.train_on_prompt && options_.history == History::per_turn)
        fail(Exit::config,
             "train_on_prompt and history: per_turn contradict each other: one trains on the chat as one text, the "
             "other "
             "only on what is generated");
    if (tokenizer_ && options_.vocab_size == 0) options_.vocab_size = tokenizer_->vocab_size();
    if (tokenizer_ && tokenizer_->vocab_size() > options_.vocab_size)
        fail(Exit::config, "{}: {} pieces; expected at most the model's vocabulary of {}", tokenizer_->path(),
             tokenizer_->vocab_size(), options_.vocab_size);
    if (!options_.chat_template) options_.chat_template = ChatTemplate::built_in("chatml");
    if (!tokenizer_) return;
    reads_forward_ = chat_template().reads_forward();
    bos_ = tokenizer_->bos();
    renderer_ = std::make_shared<const ChatRenderer>(options_.chat_template, tokenizer_, options_.end_ids);
}

Encoded Encoder::encode(const Row& row, const std::string& where) const {
    TokenCache cache;
    return encode(row, where, cache);
}

Encoded Encoder::encode(const Row& row, const std::string& where, TokenCache& cache) const {
    if (row.multi_turn) return encode_several_turns(row, where, cache);
    if (!row.scores.empty() || row.left_out > 0) return encode_kept(row, where, cache);
    if (!row.answers.empty()) return encode_preference(row, where, cache);
    Encoded result;
    if (const auto turns = encode_turns(row, where, cache, result)) {
        std::vector<Sample> trees =
            split_sample(front_code(*turns), [&](const Sample& tree) { return tree.length() <= options_.max_length; });
        if (trees.empty()) return result;
        result.sample = std::move(trees.front());
        result.more.assign(std::make_move_iterator(trees.begin() + 1), std::make_move_iterator(trees.end()));
        return result;
    }
    auto [tokens, weights, notes] = draft(row, where, cache);
    result.full_length = static_cast<int64_t>(tokens.size());
    result.notes.add(notes);
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
    Sequence sequence{.tokens = std::move(tokens), .learned = learned_spans(weights)};
    if (sequence.learned.empty()) {
        result.notes.add(RowNote::dropped_nothing_learned);
        return result;
    }
    result.notes.add_if(is_empty_answer(sequence.tokens, sequence.learned), RowNote::empty_answer);
    result.sample.sequences.push_back(std::move(sequence));
    return result;
}

/// Every kept answer as a row of its own.
Encoded Encoder::encode_kept(const Row& row, const std::string& where, TokenCache& cache) const {
    Encoded result;
    result.kept = std::ssize(row.answers);
    result.answers = result.kept + row.left_out;
    if (row.answers.empty()) result.notes.add(RowNote::dropped_no_answer_kept);
    std::vector<Sample> samples;
    RowNotes dropped;
    for (Row answer : row.answers) {
        answer.weight = row.weight;
        Encoded one = encode(answer, where, cache);
        result.full_length = std::max(result.full_length, one.full_length);
        (one.notes.dropped() ? dropped : result.notes).add(one.notes);
        if (one.notes.dropped()) continue;
        samples.push_back(std::move(one.sample));
        std::ranges::move(one.more, std::back_inserter(samples));
    }
    if (samples.empty()) {
        result.notes.add(dropped);
        return result;
    }
    result.notes.add_if(dropped.any(), RowNote::answers_left_out);
    result.sample = std::move(samples.front());
    result.more.assign(std::make_move_iterator(samples.begin() + 1), std::make_move_iterator(samples.end()));
    return result;
}

TokenDraft Encoder::draft(const Row& row, const std::string& where, TokenCache& cache) const {
    if (!tokenizer_ && row.input_ids.empty())
        fail(Exit::config,
             "{}: a text row needs a tokenizer (tokenizer.json or tokenizer.model); without one only rows of input_ids "
             "work",
             where);
    TokenDraft draft = !row.input_ids.empty()  ? draft_tokens(row, where)
                       : !row.messages.empty() ? draft_chat(row, where, cache)
                                               : draft_plain(row, cache);
    finish(draft, row);
    return draft;
}

/// What rows of every kind have: a weight, and notes.
void Encoder::finish(TokenDraft& draft, const Row& row) const {
    for (float& weight : draft.weights) weight *= row.weight;
    const std::vector<int32_t>& tokens = draft.tokens;
    draft.notes.add(answer_notes(row));
    draft.notes.add_if(tokens.size() > 1 && bos_ && tokens[0] == bos_ && tokens[1] == bos_, RowNote::double_bos);
    draft.notes.add_if(std::ranges::any_of(draft.weights, [](float w) { return w != 0 && w != 1; }), RowNote::weighted);
}

TokenDraft Encoder::draft_plain(const Row& row, TokenCache& cache) const {
    TokenDraft draft;
    const std::string prompt = row.prompt.value_or(""), &completion = *row.completion;
    if (options_.add_bos)
        for (const int32_t id : tokenizer_->document_prefix()) {
            draft.append(id, 0);
            const std::string& text = prompt.empty() ? completion : prompt;
            draft.notes.add_if(id == bos_ && text.starts_with(tokenizer_->piece(id)), RowNote::double_bos);
        }
    append_plain(draft, prompt, TextStart::document, options_.train_on_prompt ? 1 : 0, cache);
    append_plain(draft, completion, prompt.empty() ? TextStart::document : TextStart::continues, 1, cache);
    const auto eos = tokenizer_->eos();
    if (options_.add_eos && eos)
        draft.append(*eos, options_.train_on_eos != TrainOnEos::none ? 1 : 0);
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
        const float weight = row.token_weights.empty() ? 1 : row.token_weights[i];
        draft.append(id, label == id ? weight : 0);
        if (label == id) last_trained = id;
    }
    const std::vector<int32_t> ends = stop_ids();
    draft.notes.add_if(
        !ends.empty() && last_trained >= 0 && std::find(ends.begin(), ends.end(), last_trained) == ends.end(),
        RowNote::no_end_token);
    return draft;
}

void Encoder::append_plain(TokenDraft& draft, const std::string& text, TextStart start, float weight,
                           TokenCache& cache) const {
    const Encoding encoding = tokenizer_->encode(text, options_.special_tokens_in_text, start, cache);
    draft.notes.add_if(encoding.spelled_special, RowNote::marker_in_text);
    draft.notes.add_if(!encoding.spelled_special && has_turn_marker(text), RowNote::foreign_marker);
    for (const int32_t id : encoding.ids) draft.append(id, weight);
}

std::vector<int32_t> Encoder::encode_plain_prompt(const std::string& text) const {
    if (!tokenizer_) fail(Exit::config, "a text prompt needs a tokenizer (tokenizer.json or tokenizer.model)");
    TokenCache cache;
    TokenDraft draft;
    if (options_.add_bos)
        for (const int32_t id : tokenizer_->document_prefix()) draft.append(id, 0);
    append_plain(draft, text, TextStart::document, 0, cache);
    return draft.tokens;
}

std::vector<int32_t> Encoder::stop_ids() const {
    std::vector<int32_t> ids;
    const auto add = [&](std::optional<int32_t> id) {
        if (id && std::ranges::find(ids, *id) == ids.end()) ids.push_back(*id);
    };
    if (!tokenizer_) return ids;
    add(renderer_->end_token());
    add(tokenizer_->eos());
    for (const int32_t id : options_.end_ids) add(id);
    return ids;
}

std::vector<std::string> Encoder::spelled_out() const {
    return renderer_ ? renderer_->spelled_out() : std::vector<std::string>();
}

}  // namespace colonnade
