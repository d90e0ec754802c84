#pragma once
// Token embedding: out[t] = W[token[t]];   d_W[v] += sum of d_out[t] over token[t] = v, in the order of t.

#include <span>

#include "engine/context.h"

namespace colonnade {

struct EmbeddingForward {
    Tensor out;                       ///< [tokens, hidden]
    std::span<const int32_t> tokens;  ///< each in [0, vocab): checked, throws Exit::data with the position
    Tensor weight;                    ///< [vocab, hidden]
};
void embedding_forward(const Context& ctx, const EmbeddingForward& args);

struct EmbeddingBackward {
    Tensor dweight;                   ///< [vocab, hidden], accumulated
    Tensor dout;                      ///< [tokens, hidden]
    std::span<const int32_t> tokens;  ///< checked as in the forward
};
/// Deterministic: no atomics, every row is summed in token order.
void embedding_backward(const Context& ctx, const EmbeddingBackward& args);

}  // namespace colonnade
