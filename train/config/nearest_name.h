#pragma once
// The known name that an unknown one probably stands for.

#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

/// Damerau-Levenshtein distance in its optimal string alignment form: the least number of insertions,
/// deletions, replacements and swaps of neighbouring characters that turn `a` into `b`. O(|a| |b|).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `name`; the first one among equals. Empty if none is within a quarter of the name's length,
/// 1 or 2: further names are other words, not typing errors.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace colonnade
