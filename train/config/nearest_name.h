#pragma once
// The name that somebody probably meant.

#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

/// Damerau-Levenshtein distance in its optimal string alignment form: the least number of inserted, dropped, replaced
/// and swapped neighbouring characters that turns `a` into `b`. O(|a| |b|).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `name`, the first of equals; empty when none is within a third of the name's length (at
/// least 1).
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace colonnade
