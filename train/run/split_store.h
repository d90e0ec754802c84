#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "data/store/store.h"

namespace colonnade {

/// Draws `count` of these samples; sorted. Which ones depends on seed, stream and the samples alone.
std::vector<int64_t> draw_samples(std::vector<int64_t> samples, int64_t count, uint64_t seed, uint64_t stream);

/// Splits `val_size` samples (a share below 1, otherwise a count) off a store; returns the rest and the split. The seed
/// draws them; both parts keep the order. Throws Exit::config if nothing is left.
std::pair<TokenStore, TokenStore> split_store(const TokenStore& all, double val_size, uint64_t seed);

}  // namespace colonnade
