#pragma once
// What all ranks of a run must agree on before they train together, and whether they still do.

#include <string>
#include <utility>
#include <vector>

#include "engine/ranks/ranks.h"
#include "train/config/config.h"

namespace colonnade {

using Facts = std::vector<std::pair<std::string, std::string>>;  ///< what it is about, and what this rank has there

/// Throws Exit::config on all ranks where two of them differ, naming the first fact that does, both ranks and both values.
void require_same(const Ranks& ranks, const Facts& facts);

/// The program and every key of the config but those that may differ from machine to machine (threads, device_index).
Facts facts_of_run(const Config& config);

/// Throws Exit::numerics on all ranks where checksums of weights differ, naming the ranks that are in the minority. `step`:
/// steps done; `agreed`: the last one after which they were equal.
void require_same_weights(const Ranks& ranks, uint64_t checksum, int64_t step, int64_t agreed);

}  // namespace colonnade
