#pragma once
// Reads what a teacher says about the tokens of a row. Each token has a list of the tokens that the teacher finds most
// probable in its place, given the tokens before it, in one of these forms:
//
//   teacher_ids [[7, 3], ...] beside teacher_log_probs [[-0.2, -1.9], ...]; also target_token_ids beside target_logprobs
//   or logprobs; an id of -1 is no entry
//   logprobs, prompt_logprobs  [entry, ...], an entry being
//     {"7": {"logprob": -0.2, ...}, "3": -1.9}                         as vLLM's Python interface gives it
//     [{"token": "token_id:7", "logprob": -0.2}, ...]                  as Axolotl reads it; "token" or "token_id" may be a
//                                                                      number
//     {"token": ..., "logprob": ..., "top_logprobs": [{...}, ...]}     as OpenAI's interface gives it, with token ids
//
// An entry that is null or empty says nothing of its token, which then is not learned. A log-probability of null or -inf
// leaves its token out of the list; up to 1e-3 above 0 is rounding, and becomes 0.

#include <functional>

#include "data/rows/row_fields.h"
#include "data/rows/teacher_lists.h"

namespace colonnade {

/// All names of these keys, for `columns`.
std::vector<std::string> teacher_keys();

/// Whether the row has lists of a teacher.
bool has_teacher(const RowFields& row);

/// Chooses the entries that belong to learned tokens among those of a list under `key`.
using ChooseEntries = std::function<std::vector<const Json*>(const char* key)>;

/// Throws Exit::data with the row's place for a list of another form, for an id that is twice in a list, for more than
/// TeacherLists::longest entries and for probabilities that add up to more than 1.
TeacherLists read_teacher(const RowFields& row, const ChooseEntries& choose);

}  // namespace colonnade
