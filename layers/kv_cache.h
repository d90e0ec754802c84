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

/// For one new token per sequence: norm of queries and keys if the model has one, rotation (layers/rope.h), then keys
/// and values go to the cache. Queries stay in `qkv`.
struct DecodeHeads {
    Tensor qkv;               ///< [rows, (heads + 2 kv_heads) * head_dim]: q, k, v
    Tensor k_cache, v_cache;  ///< [slots, capacity, kv_heads, head_dim]
    Tensor slots, positions;  ///< i32 [rows]
    Tensor cos, sin;          ///< sum_dtype [capacity, head_dim / 2], by position
    Tensor q_norm{}, k_norm{};
    double eps = 0;
};
void decode_heads(const Context& ctx, const DecodeHeads& args);

}  // namespace colonnade
