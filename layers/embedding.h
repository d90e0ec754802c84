#pragma once
// Token embedding: out[t] = W[token[t]];   d_W[v] += sum of d_out[t] over token[t] = v.
//
// Forward checks its tokens on the CPU, but not on a GPU: the host checks them before it uploads them.

#include "layers/token_index.h"

namespace colonnade {

struct EmbeddingForward {
    Tensor out;     ///< [tokens, hidden]
    Tensor tokens;  ///< i32 [tokens], each in [0, vocab); the CPU throws Exit::data with the position
    Tensor weight;  ///< [vocab, hidden]; the CPU widens bf16 to an f32 `out`
};
void embedding_forward(const Context& ctx, const EmbeddingForward& args);

struct EmbeddingBackward {
    Tensor dweight;    ///< sum_dtype [vocab, hidden], accumulated
    Tensor dout;       ///< [tokens, hidden]
    TokenIndex index;  ///< of the batch's tokens
};
/// Deterministic, without atomics. The CPU adds a token's rows in the order of t; a GPU sums them in f32 in a fixed
/// order.
void embedding_backward(const Context& ctx, const EmbeddingBackward& args);

}  // namespace colonnade
