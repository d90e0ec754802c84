#pragma once

#include <cstdint>
#include <span>

#include "data/rows/rows.h"
#include "data/store/store.h"

namespace colonnade {

/// Repeats and thins the samples of each data set by its weight w: floor(w) passes over all n of them, then round((w -
/// floor(w)) n) that the seed draws, the same in every epoch. Throws Exit::config if nothing is left of a data set that
/// has samples.
TokenStore weigh_store(TokenStore store, std::span<const DatasetSpec> datasets, uint64_t seed);

}  // namespace colonnade
