#pragma once
// EmbeddingRows: the gradient of the embedding for one batch, in the form in which ranks send it: one row for each
// position of the batch, and the positions of each token. That is far less than the matrix: 16384 rows of bf16 instead
// of 128256 of f32.

#include "layers/embedding.h"

namespace colonnade {

struct EmbeddingRows {
    Tensor message;  ///< u8: the memory of all tensors below, in one piece
    Tensor dout;     ///< [tokens, hidden]
    TokenIndex index;

    static EmbeddingRows lay_out(Arena& arena, int64_t tokens, int64_t hidden, DType dtype);
    bool empty() const { return message.empty(); }
    /// Copies the rows of a batch (it may be shorter than the buffer). An empty `dout` stands for an empty batch.
    void fill(const Context& ctx, const Tensor& dout, const TokenIndex& index) const;
};

}  // namespace colonnade
