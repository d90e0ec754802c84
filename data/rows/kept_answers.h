#pragma once
// Rejection sampling: which answers of a row with scores are learned. The key `keep` of a data set says it.
//
//     best      the answer with the highest score, the first of equal ones
//     above X   every answer with a score greater than X
//
// An answer without a score (null) is never kept.

#include <optional>
#include <string>

#include "data/rows/rows.h"

namespace colonnade {

struct KeptAnswers {
    std::optional<double> above;  ///< empty: the best one
};

inline constexpr const char* keep_forms = "best, or above and a number, as in above 0.5";

/// Nothing for a text of another form.
std::optional<KeptAnswers> parse_keep(const std::string& text);

/// Reduces row.answers and row.scores to those that are kept.
void keep_answers(Row& row, const KeptAnswers& keep);

}  // namespace colonnade
