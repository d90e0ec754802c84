#pragma once
// The cache of keys and values, as ops see it: [slots, capacity, kv_heads, head_dim] per layer for keys and as much for
// values. A sequence has a slot; its token at position p has row p of it.
//
// Slots and positions are not checked on a GPU: the host made them.

#include "engine/device/context.h"

namespace colonnade {

/// cache[slots[t], positions[t]] = heads[t]
struct AppendToCache {
    Tensor cache;
    Tensor heads;             ///< [tokens, kv_heads, head_dim]; rows may be strided
    Tensor slots, positions;  ///< i32 [tokens]
};
void append_to_cache(const Context& ctx, const AppendToCache& args);

}  // namespace colonnade
