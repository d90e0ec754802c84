#pragma once

#include <utility>

#include "data/store/store.h"

namespace colonnade {

/// Splits `val_size` samples (a share below 1, otherwise a count) off a store; returns the rest and the split. The seed
/// draws them; both parts keep the order. Throws Exit::config if nothing is left.
std::pair<TokenStore, TokenStore> split_store(const TokenStore& all, double val_size, uint64_t seed);

}  // namespace colonnade
