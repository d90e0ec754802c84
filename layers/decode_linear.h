#pragma once
// The linear layers of a decode step: few rows, one per sequence, times a weight that is read once, so that the time is
// that of reading the weight. A norm before, and what follows the product, are fused with it:
//
//     x = rmsnorm(in) or in;   y = x W^T + bias, plus scale * (x A_i^T) B_i^T in the columns of adapter slice i
//     out = y,   add + y,   or silu(gate) * up with [gate, up] = y
//
// CPU: activations f32 or f64; the weight has their dtype, or is bf16 and is widened as it is read. A row gets the same
// bits whatever the other rows are. GPU: bf16 with sums in f32; up to decode_rows rows take one kernel per layer, which
// gives a row the same bits whatever the other rows are; more rows take cuBLASLt and a kernel that finishes its product.

#include "engine/device/arena.h"
#include "layers/low_rank.h"

namespace colonnade {

/// Rows that the kernel of a GPU takes.
constexpr int64_t decode_rows = 16;

/// Memory that all layers of a step share: [rows * widest] each, in the dtype of sums but for `normed`.
struct DecodeScratch {
    Tensor normed;   ///< [rows * in_features]
    Tensor rstd;     ///< [rows]
    Tensor product;  ///< [rows * out_features]
    Tensor h;        ///< [rows * LowRank::a.size(0)]

    struct Sizes {
        int64_t rows, in_features, out_features;
        int64_t low_rank = 1;  ///< rows of the largest LowRank::a
    };
    static DecodeScratch lay_out(Arena& arena, DType dtype, const Sizes& widest);
};

enum class DecodeFinish { none, swiglu };

struct DecodeLinear {
    Tensor out;  ///< [rows, out_features], or [rows, out_features / 2] with swiglu; f32 for logits on a GPU
    Tensor in;   ///< [rows, in_features]
    Tensor weight;
    Tensor bias{};  ///< [out_features], or empty
    Tensor norm{};  ///< [in_features], the weight of an RMSNorm of `in`; or empty
    double eps = 0;
    const LowRank* adapters = nullptr;
    Tensor add{};  ///< [rows, out_features]; may be `out`; or empty
    DecodeFinish finish = DecodeFinish::none;
    const DecodeScratch& scratch;
};
void decode_linear(const Context& ctx, const DecodeLinear& args);

/// What is left after a product of many rows: bias, adapters, and the sum or SwiGLU.
struct DecodeFinishing {
    const DecodeLinear& linear;
    Tensor product;  ///< [rows, out_features], the dtype of sums
    Tensor h;        ///< [rows, LowRank::a.size(0)], the dtype of sums; or empty
};

}  // namespace colonnade
