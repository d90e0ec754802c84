#pragma once
// Sizes, durations and counts as short text with a unit, for messages and tables that people read.

#include <cstddef>
#include <string>

namespace colonnade {

/// "1.50 GiB", "12.3 MiB", "640 B".
std::string human_bytes(size_t bytes);
/// "350 ms", "12.3 s", "4m 05s", "2h 03m", "3d 04h".
std::string human_duration(double seconds);
/// "999", "12.3k", "4.56M", "1.20G": three significant digits from a thousand up.
std::string human_count(double count);

}  // namespace colonnade
