#pragma once
// Token index: the positions of a batch sorted by token, so that the embedding's gradient sums each row of the table
// without atomics.

#include <span>
#include <vector>

#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

/// The index on the device that runs the op. The positions of token ids[i] are order[begins[i]] .. order[begins[i + 1]
/// - 1], ascending. Entries i with begins[i + 1] <= begins[i] are unused.
struct TokenIndex {
    int64_t distinct = 0;  ///< upper bound of the number of different tokens
    Tensor order{};        ///< i32 [tokens]
    Tensor begins{};       ///< i32 [tokens + 1]
    Tensor ids{};          ///< i32 [tokens], ascending
    static TokenIndex lay_out(Arena& arena, const std::string& group, int64_t tokens);
};

/// The same on the host.
struct HostTokenIndex {
    std::vector<int32_t> order, begins, ids;
};
/// Takes time proportional to tokens + vocabulary. Tokens must not be negative.
HostTokenIndex make_token_index(std::span<const int32_t> tokens);
/// Makes the index and copies it into `index`, which is laid out for this many tokens or more.
void fill_token_index(const Context& ctx, TokenIndex& index, std::span<const int32_t> tokens);

}  // namespace colonnade
