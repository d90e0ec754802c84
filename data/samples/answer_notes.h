#pragma once
// answer_notes: what the texts of a row show about its answers before they are tokenised.

#include "data/rows/rows.h"
#include "data/samples/row_note.h"

namespace colonnade {

/// Notes of a row that is no preference, or of one answer with its prompt: empty_answer, no_prompt, unanswered. An
/// assistant's message that only calls tools is an answer. Rows of token ids have no notes here.
RowNotes answer_notes(const Row& row);

}  // namespace colonnade
