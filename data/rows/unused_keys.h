#pragma once
// What a key means that no reader of its row asked for. Nothing is ignored in silence: a key is harmless by a list, or
// its rows are counted (StoreStatistics::unused_columns), or the row is refused.

#include <string>
#include <string_view>
#include <vector>

#include "data/rows/row_fields.h"

namespace colonnade {

/// Whether a key seems to say what is learned, or how much: a word of its name is mask, label, weight or loss.
bool may_select_tokens(std::string_view key);

/// Returns the unread keys of a row without the harmless ones: ids, scores, sources, languages, sizes, dates, hashes.
/// Throws Exit::data for a key that may select what is learned, and for one that the model would have to see: a system
/// prompt beside a format without one, images, audio, video.
std::vector<std::string> unused_keys(const RowFields& row);

}  // namespace colonnade
