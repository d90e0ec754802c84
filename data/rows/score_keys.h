#pragma once
// Reads what a row says about its answers beside their text or tokens: rewards, advantages, labels, groups, and whether
// the sampler cut them off.
//
//   reward, rewards        of one answer: a number, true, false, or a list or an object of those of several functions;
//                          null or NaN: none. Of several answers: a list with one of these for each, or an object with
//                          such a list for each function
//   advantage, advantages  a number, null for an answer that teaches nothing; of several answers a list of them
//   group, group_id, group_index  any text or number; without it, answers to equal prompts are a group
//   truncated              true or false; finish_reason "length" and status "truncated" say the same
//   label                  true or false, 1 or 0

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "data/rows/row_fields.h"

namespace colonnade {

/// The names of these keys, for `columns`.
std::vector<std::string> reward_keys();

/// A key that takes other names too.
using KeyNames = std::span<const char* const>;
/// The one of the names that the row has with a value; null if it has none. Throws Exit::data if it has several.
const char* find_one(const RowFields& row, KeyNames names);

/// Whether the row has a reward or an advantage, null included.
bool has_reward(const RowFields& row);

/// Scores of the answers of a list. Groups are those of explicit keys, or zero. Throws Exit::data for lists of another
/// length, for values of another type, and without a reward or an advantage.
std::vector<AnswerScore> read_scores(const RowFields& row, size_t answers);
/// Score of the only answer. `advantage`: read elsewhere.
AnswerScore read_score(const RowFields& row, std::optional<double> advantage = std::nullopt);
/// Score of an answer that is labelled. Throws Exit::data beside a reward or an advantage.
AnswerScore read_label(const RowFields& row);

/// The names of a row's advantage.
KeyNames advantage_names();
/// The row's own group, if it names one.
std::optional<GroupKey> read_group(const RowFields& row);
/// `form` keeps apart prompts of text, messages and tokens.
GroupKey group_of(std::string_view form, std::string_view prompt);

}  // namespace colonnade
