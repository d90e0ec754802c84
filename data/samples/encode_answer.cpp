// Encoder for answers of which the row knows more than their text: one sequence each, with what it knows of their tokens.

#include <algorithm>
#include <cmath>

#include "data/samples/encode.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

/// Takes out the end token of a text whose sampler stopped before it.
void leave_end_open(TokenDraft& draft, const std::vector<int32_t>& ends) {
    const auto last = std::find_if(draft.weights.rbegin(), draft.weights.rend(), [](float w) { return w > 0; });
    if (last == draft.weights.rend()) return;
    const auto at = static_cast<size_t>(draft.weights.rend() - last) - 1;
    if (std::ranges::find(ends, draft.tokens[at]) != ends.end()) *last = 0;
}

/// Leaves out of what is learned the tokens that the teacher says nothing about. Returns the lists of the others.
TeacherLists match_teacher(TokenDraft& draft, const TeacherLists& given, int64_t vocab_size, const std::string& where) {
    for (const int32_t id : given.ids)
        if (vocab_size > 0 && id >= vocab_size)
            fail(Exit::data, "{}: the teacher's lists hold token {}; expected 0 to {}: the vocabulary of the student",
                 where, id, vocab_size - 1);
    std::vector<float*> learned;
    for (size_t i = 1; i < draft.weights.size(); ++i)
        if (draft.weights[i] > 0) learned.push_back(&draft.weights[i]);
    if (std::ssize(learned) != given.tokens())
        fail(Exit::data,
             "{}: a teacher's lists for {} tokens, but {} are learned with this tokenizer, chat template and "
             "train_on_eos; expected a list for each; rows of token ids (prompt_ids and completion_ids) leave no doubt",
             where, given.tokens(), learned.size());
    TeacherLists matched;
    for (int64_t i = 0; i < given.tokens(); ++i) {
        if (given.length_of(i) == 0)
            *learned[static_cast<size_t>(i)] = 0;
        else
            matched.append(given, i);
    }
    return matched;
}

/// Applies max_length: an answer is cut at its end. False if the row is dropped.
bool shorten(TokenDraft& draft, const EncodeOptions& options, const std::string& where, Encoded& result) {
    const auto limit = static_cast<size_t>(options.max_length);
    if (draft.tokens.size() <= limit) return true;
    if (options.excess_length == ExcessLength::error)
        fail(Exit::data, "{}: a prompt and its answer have {} tokens; expected at most max_length {}", where,
             draft.tokens.size(), limit);
    const auto learned = [](float weight) { return weight > 0; };
    const bool was_learned = std::ranges::any_of(draft.weights, learned);
    draft.tokens.resize(limit);
    draft.weights.resize(limit);
    const bool prompt_alone = was_learned && std::ranges::none_of(draft.weights, learned);
    const bool dropped = prompt_alone || options.excess_length == ExcessLength::drop;
    result.notes.add(dropped ? RowNote::dropped_too_long : RowNote::truncated);
    return !dropped;
}

}  // namespace

Encoded Encoder::encode_answer(const Row& answer, const std::string& where, TokenCache& cache) const {
    const AnswerScore& score = *answer.score;
    Encoded result;
    TokenDraft draft = draft_answer(answer, where, cache);
    result.full_length = std::ssize(draft.tokens);
    result.notes.add(draft.notes);
    if (score.truncated && answer.input_ids.empty()) leave_end_open(draft, stop_ids());
    TeacherLists teacher;
    if (!score.teacher.empty()) teacher = match_teacher(draft, score.teacher, options_.vocab_size, where);
    if (!shorten(draft, options_, where, result)) return result;

    Sequence sequence{.tokens = std::move(draft.tokens), .learned = learned_spans(draft.weights), .logps = score.logps};
    if (score.advantage && !std::isnan(*score.advantage)) sequence.advantage = static_cast<float>(*score.advantage);
    const bool cut_off = score.truncated || result.notes.has(RowNote::truncated);
    if (cut_off && options_.mask_truncated) sequence.learned.clear();
    for (const auto of : GivenLogps::all)
        if (std::vector<float>& logps = sequence.logps.*of; !logps.empty())
            logps.resize(static_cast<size_t>(learned_tokens(sequence)));
    teacher.resize(learned_tokens(sequence));
    sequence.teacher = std::move(teacher);
    result.notes.add_if(cut_off, RowNote::cut_off);
    result.notes.add(sequence.learned.empty()                             ? RowNotes{RowNote::answer_not_learned}
                     : is_empty_answer(sequence.tokens, sequence.learned) ? RowNotes{RowNote::empty_answer}
                                                                          : RowNotes{});
    result.sample.sequences.push_back(std::move(sequence));
    return result;
}

}  // namespace colonnade
