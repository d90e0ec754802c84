#pragma once
// Token embedding: out[t] = W[token[t]];   d_W[v] += sum of d_out[t] over token[t] = v.
//
// Forward checks its tokens on the CPU. On a GPU it does not: the host knew them and checked them before they went there.

#include <span>
#include <vector>

#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

struct EmbeddingForward {
    Tensor out;     ///< [tokens, hidden]
    Tensor tokens;  ///< i32 [tokens], each in [0, vocab): on the CPU throws Exit::data with the position
    Tensor weight;  ///< [vocab, hidden]
};
void embedding_forward(const Context& ctx, const EmbeddingForward& args);

/// Positions sorted by token, where the op runs: those of token ids[i] are order[begins[i]] .. order[begins[i + 1] - 1],
/// ascending. There may be room for more than there is: entries i with begins[i + 1] <= begins[i] are of no token.
struct TokenIndex {
    int64_t distinct = 0;  ///< at most so many different tokens
    Tensor order{};        ///< i32 [tokens]
    Tensor begins{};       ///< i32 [tokens + 1]
    Tensor ids{};          ///< i32 [tokens], ascending
    static TokenIndex lay_out(Arena& arena, const std::string& group, int64_t tokens);
};

/// The same on the host.
struct HostTokenIndex {
    std::vector<int32_t> order, begins, ids;
};
/// In time proportional to tokens + vocabulary. Tokens are not negative.
HostTokenIndex make_token_index(std::span<const int32_t> tokens);
/// Makes the index and copies it to memory that is laid out for so many tokens, or more.
void fill_token_index(const Context& ctx, TokenIndex& index, std::span<const int32_t> tokens);

struct EmbeddingBackward {
    Tensor dweight;  ///< sum_dtype [vocab, hidden], accumulated
    Tensor dout;     ///< [tokens, hidden]
    TokenIndex index;
};
/// Deterministic, without atomics. The CPU adds a token's rows in the order of t, a GPU sums them in f32 in a fixed order.
void embedding_backward(const Context& ctx, const EmbeddingBackward& args);

}  // namespace colonnade
