#pragma once
// Checks that all ranks of a run agree: on program and config before they train, on the weights while they do.

#include <string>
#include <utility>
#include <vector>

#include "engine/ranks/ranks.h"
#include "train/config/config.h"

namespace colonnade {

using Facts = std::vector<std::pair<std::string, std::string>>;  ///< name, and value on this rank

/// Throws Exit::config on all ranks if two of them differ, naming the first fact that differs, both ranks and both
/// values.
void require_same(const Ranks& ranks, const Facts& facts);

/// The program and every key of the config, except keys that may differ between machines (Key::per_machine()).
Facts facts_of_run(const Config& config);

/// Throws Exit::numerics on all ranks if their checksums of the weights differ, naming the ranks in the minority.
/// `step`: steps done; `agreed`: the last step after which the checksums were equal.
void require_same_weights(const Ranks& ranks, uint64_t checksum, int64_t step, int64_t agreed);

}  // namespace colonnade
