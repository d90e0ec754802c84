#pragma once
// The id of a run with a tracker: a resumed run keeps it.

#include <string>

namespace colonnade {

/// Letters and digits, `length` of them, by chance.
std::string random_id(size_t length);

/// The id of letters and digits in <folder>/run-id.txt; empty if there is none of `length`.
std::string kept_id(const std::string& folder, size_t length);
/// Makes the folder. Throws Exit::storage.
void keep_id(const std::string& folder, const std::string& id);
/// The id of the run that is resumed, or a new one, which is kept.
std::string id_of_run(const std::string& folder, size_t length, bool resumed);

}  // namespace colonnade
