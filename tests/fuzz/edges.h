#pragma once
// Edges of the control flow that a process has taken, for the fuzzer. With COLONNADE_SANITIZE=address every block of the
// code calls __sanitizer_cov_trace_pc(), which counts the step from the block before it, as AFL does: the counter of an
// edge is at hash(block) ^ hash(block before) / 2. Other builds have no counters.

#include <cstddef>
#include <cstdint>

namespace colonnade::edges {

inline constexpr size_t counters = size_t{1} << 18;

/// Which counts of which edges were seen: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, 128 and more are a bit each.
using Seen = uint8_t[counters];

bool counted();  ///< whether this build counts edges
void reset();    ///< sets all counters to 0
/// Adds the counts since reset() to `seen`; returns whether there was a new one.
bool add_to(Seen& seen);
size_t edges_in(const Seen& seen);

}  // namespace colonnade::edges
