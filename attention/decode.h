#pragma once
// Attention of one new token per sequence over a cache of keys and values. The token's heads come as the linear layer
// made them:
//
//     q, k, v = qkv[r];  q = rotate(q_norm(q));  k = rotate(k_norm(k))         norm and rotation if they are given
//     K[slots[r], positions[r]] = k;  V[slots[r], positions[r]] = v
//     out[r] = softmax(scale * q K^T) V    over the keys [first, positions[r]] of slot slots[r],
//     first = max(0, positions[r] + 1 - window), or 0 without a window
//
// The norm is RMSNorm. The rotation turns the pairs (i, i + head_dim / 2) by the angles of the position, as layers/rope.h
// does. Query head h reads key/value head h / (heads / kv_heads). A row gets the same bits whatever the other rows are:
// the keys are divided by their number alone.
//
// CPU: f32 and f64. GPU (sm_80 or newer): bf16 with sums in f32, head_dim a multiple of 8 up to 256; the keys of a row
// are divided among CTAs, and the last of them adds the parts. Slots and positions are not checked there.

#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

struct DecodeAttention {
    Tensor out;                 ///< [rows, heads, head_dim], contiguous
    Tensor qkv;                 ///< [rows, (heads + 2 kv_heads) * head_dim]; rows may be strided
    Tensor k, v;                ///< [slots, capacity, kv_heads, head_dim]
    Tensor slots, positions;    ///< i32 [rows]; no two rows have the same slot
    Tensor cos{}, sin{};        ///< sum_dtype [capacity or more, head_dim / 2], by position; or empty
    Tensor q_norm{}, k_norm{};  ///< [head_dim], or empty
    double eps = 0;
    int64_t window = 0;  ///< keys that a query sees, itself included; 0: all
    double scale;
    int64_t longest;   ///< no row has more keys; a GPU's grid is made for it
    Tensor scratch{};  ///< GPU: u8 [decode_attention_scratch_bytes()], zero at first; each call leaves it so
    /// GPU: slots, positions and older keys and values were written before the kernel that precedes this one in the
    /// stream, and that kernel allows the next one when it has waited (engine/device/dependent_launch.cuh). They are
    /// then read while it ends.
    bool read_early = false;
};
void decode_attention(const Context& ctx, const DecodeAttention& args);

struct DecodeAttentionSizes {
    int64_t rows, heads, kv_heads, head_dim, capacity;
};
/// Bytes of DecodeAttention::scratch; 0 on the CPU.
int64_t decode_attention_scratch_bytes(Device device, const DecodeAttentionSizes& sizes);

}  // namespace colonnade
