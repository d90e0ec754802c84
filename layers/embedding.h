#pragma once
// Token embedding: out[t] = W[token[t]];   d_W[v] += sum of d_out[t] over token[t] = v.
//
// On the CPU tokens are checked. On a GPU they are not: the host knew them and checked them before they went there.

#include <span>
#include <vector>

#include "engine/context.h"

namespace colonnade {

struct EmbeddingForward {
    Tensor out;     ///< [tokens, hidden]
    Tensor tokens;  ///< i32 [tokens], each in [0, vocab): on the CPU throws Exit::data with the position
    Tensor weight;  ///< [vocab, hidden]
};
void embedding_forward(const Context& ctx, const EmbeddingForward& args);

/// Positions sorted by token, on a GPU: those of token ids[i] are order[begins[i]] .. order[begins[i + 1] - 1],
/// ascending. The tensors may have room for more than is used.
struct TokenIndex {
    int64_t distinct = 0;  ///< different tokens
    Tensor order{};        ///< i32 [tokens]
    Tensor begins{};       ///< i32 [distinct + 1]
    Tensor ids{};          ///< i32 [distinct], ascending
};

/// The same on the host.
struct HostTokenIndex {
    std::vector<int32_t> order, begins, ids;
};
/// In time proportional to tokens + vocabulary. Tokens are not negative.
HostTokenIndex make_token_index(std::span<const int32_t> tokens);
/// Makes the index and enqueues its copy to memory that is laid out for so many tokens.
void upload_token_index(const Context& ctx, TokenIndex& index, std::span<const int32_t> tokens);

struct EmbeddingBackward {
    Tensor dweight;      ///< sum_dtype [vocab, hidden], accumulated
    Tensor dout;         ///< [tokens, hidden]
    Tensor tokens;       ///< checked as in the forward
    TokenIndex index{};  ///< GPU: of `tokens`; unused on the CPU
};
/// Deterministic, without atomics. The CPU sums a token's rows in the order of t, a GPU in f32 in a fixed order.
void embedding_backward(const Context& ctx, const EmbeddingBackward& args);

}  // namespace colonnade
