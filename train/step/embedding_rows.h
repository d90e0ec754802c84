#pragma once
// EmbeddingRows: the embedding's gradient of one batch as it travels between ranks, a row for each of the batch's
// positions and which positions each token has. Far less than the matrix: 16384 rows of bf16 for 128256 rows of f32.

#include "layers/embedding.h"

namespace colonnade {

struct EmbeddingRows {
    Tensor message;  ///< u8: all that follows, in one piece
    Tensor dout;     ///< [tokens, hidden]
    TokenIndex index;

    static EmbeddingRows lay_out(Arena& arena, int64_t tokens, int64_t hidden, DType dtype);
    bool empty() const { return message.empty(); }
    /// Copies those of a batch, which may have fewer tokens. Without `dout`: of none.
    void fill(const Context& ctx, const Tensor& dout, const TokenIndex& index) const;
};

}  // namespace colonnade
