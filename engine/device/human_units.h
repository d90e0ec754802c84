#pragma once
// Sizes, durations and counts as short text with a unit, for messages and tables that people read.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace colonnade {

/// "1.50 GiB", "12.3 MiB", "640 B".
std::string human_bytes(size_t bytes);
/// Reads "24GiB", "1.5 TiB", "48GB" (10^9 bytes) or "4096B"; nothing if the text is not a number with a unit of KiB to TiB,
/// kB or KB to TB, or B, or if it is beyond 2^62 bytes.
std::optional<size_t> parse_bytes(std::string_view text);
/// The same number in the largest unit that leaves it whole: parse_bytes() reads it back.
std::string exact_bytes(size_t bytes);
/// "350 ms", "12.3 s", "4m 05s", "2h 03m", "3d 04h".
std::string human_duration(double seconds);
/// "999", "12.3k", "4.56M", "1.20G": three significant digits from a thousand up.
std::string human_count(double count);

}  // namespace colonnade
