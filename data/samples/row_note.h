#pragma once
// RowNote: what is worth reporting about a row of a data set. The encoder sets notes, the token store counts them, and
// `prepare` prints the counts. A new note is one entry of the enum and one line of the table.

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace colonnade {

enum class RowNote {
    truncated,
    dropped_too_long,
    dropped_nothing_learned,
    dropped_no_room,
    dropped_same_answers,
    dropped_difference_cut,
    dropped_no_answer_kept,
    no_end_token,
    double_bos,
    marker_in_text,
    foreign_marker,
    empty_answer,
    no_prompt,
    unanswered,
    per_turn,
    turns_left_out,
    answers_left_out,
    history_not_exact,
    weighted,
    cut_off,
    answer_not_learned,
};

enum class NoteEffect { changed, dropped, suspicious };  ///< only dropped rows leave no sample
constexpr const char* name_of(NoteEffect effect) {
    return effect == NoteEffect::dropped ? "dropped" : effect == NoteEffect::suspicious ? "suspicious" : "changed";
}

struct RowNoteInfo {
    RowNote note;
    NoteEffect effect;
    const char* key;    ///< in the statistics of a token store
    const char* label;  ///< in the report of prepare, after the effect
    const char* meaning;
};

/// In the order of the enum, which is the order of the report.
inline constexpr auto row_notes = std::to_array<RowNoteInfo>({
    {RowNote::truncated, NoteEffect::changed, "truncated", "truncated",
     "The end of the sample was cut to fit the length limits."},
    {RowNote::dropped_too_long, NoteEffect::dropped, "dropped_too_long", "too long",
     "The row, or the prompt with one of its answers, has more than max_length tokens."},
    {RowNote::dropped_nothing_learned, NoteEffect::dropped, "dropped_nothing_learned", "no trained token",
     "The loss mask selects no token; in a preference, no token of one of the answers, or all pairs have weight 0."},
    {RowNote::dropped_no_room, NoteEffect::dropped, "dropped_no_room", "no room",
     "Preferences: the answers do not fit into one sample, not even with one trained token each if truncated."},
    {RowNote::dropped_same_answers, NoteEffect::dropped, "dropped_same_answers", "same answers",
     "Preferences: two answers have the same tokens."},
    {RowNote::dropped_difference_cut, NoteEffect::dropped, "dropped_difference_cut", "same when cut",
     "Preferences: two answers have the same tokens after truncation."},
    {RowNote::dropped_no_answer_kept, NoteEffect::dropped, "dropped_no_answer_kept", "no answer kept",
     "No answer of a row with scores is one that `keep` takes."},
    {RowNote::no_end_token, NoteEffect::suspicious, "no_end_token", "no end token",
     "A trained answer does not end with an end token."},
    {RowNote::double_bos, NoteEffect::suspicious, "double_bos", "double BOS",
     "The sample starts with two BOS tokens, or with BOS and the text that spells it."},
    {RowNote::marker_in_text, NoteEffect::suspicious, "marker_in_text", "marker in text",
     "A text spells a special token, such as <|im_end|>. It stays text unless special_tokens_in_text says otherwise."},
    {RowNote::foreign_marker, NoteEffect::suspicious, "foreign_marker", "foreign marker",
     "A text has a marker that this tokenizer takes for ordinary text, as if rendered with another chat template: "
     "<|user|>, [INST], <start_of_turn>."},
    {RowNote::empty_answer, NoteEffect::suspicious, "empty_answer", "empty answer",
     "An answer is empty or white space only, or has no trained tokens but those of white space and end tokens."},
    {RowNote::no_prompt, NoteEffect::suspicious, "no_prompt", "no prompt",
     "Nothing but white space stands before an answer; in a preference: the answers share no message, or no token "
     "except BOS. Rows of text alone have no prompt."},
    {RowNote::unanswered, NoteEffect::suspicious, "unanswered", "unanswered",
     "A chat ends with a message of the user or of a tool."},
    {RowNote::per_turn, NoteEffect::changed, "per_turn", "learned turn by turn",
     "A chat became one sequence per learned turn, because its template rewrites earlier turns."},
    {RowNote::turns_left_out, NoteEffect::changed, "turns_left_out", "turns left out",
     "Turns of such a chat are longer than max_length, with all that stands before them."},
    {RowNote::answers_left_out, NoteEffect::changed, "answers_left_out", "answers left out",
     "Of a row with several answers to learn, or turns to compare, some are too long, equal or without a trained "
     "token."},
    {RowNote::history_not_exact, NoteEffect::suspicious, "history_not_exact", "history not exact",
     "history: auto. The template rewrites earlier turns, but a turn cannot be learned behind its generation prompt."},
    {RowNote::weighted, NoteEffect::changed, "weighted", "weighted",
     "The row, its messages, its pairs or its tokens have weights, and not only 0 and 1."},
    {RowNote::cut_off, NoteEffect::changed, "cut_off", "cut off",
     "Scored answers: the sampler stopped before the end, or max_length did."},
    {RowNote::answer_not_learned, NoteEffect::changed, "answer_not_learned", "counted, not learned",
     "Scored answers: they count as answers, but no token is learned: masks say so, or mask_truncated_completions."},
});
static_assert([] {
    for (size_t i = 0; i < row_notes.size(); ++i)
        if (row_notes[i].note != static_cast<RowNote>(i)) return false;
    return row_notes.back().note == RowNote::answer_not_learned;
}());

/// The notes of one row.
class RowNotes {
  public:
    RowNotes() = default;
    RowNotes(std::initializer_list<RowNote> notes) {
        for (const RowNote note : notes) add(note);
    }
    void add(RowNote note) { set_.set(static_cast<size_t>(note)); }
    void add_if(bool condition, RowNote note) {
        if (condition) add(note);
    }
    void add(const RowNotes& notes) { set_ |= notes.set_; }
    bool has(RowNote note) const { return set_.test(static_cast<size_t>(note)); }
    bool any() const { return set_.any(); }
    /// A bit for each note, in the order of the enum.
    int32_t bits() const { return static_cast<int32_t>(set_.to_ulong()); }
    static RowNotes of_bits(int32_t bits) {
        RowNotes notes;
        notes.set_ = static_cast<uint32_t>(bits);
        return notes;
    }
    /// Whether the row leaves no sample.
    bool dropped() const {
        for (const RowNoteInfo& info : row_notes)
            if (info.effect == NoteEffect::dropped && has(info.note)) return true;
        return false;
    }
    bool operator==(const RowNotes&) const = default;

  private:
    std::bitset<row_notes.size()> set_;
};

}  // namespace colonnade
