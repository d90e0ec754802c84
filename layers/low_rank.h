#pragma once
// Low-rank adapters (LoRA, arXiv 2106.09685) of a linear layer whose weight is frozen. In a packed layer q, k and v
// each have their own matrices A_i and B_i, which act on their slice of the columns of `out`. All A_i are stacked in
// one matrix, so that one product serves them:
//
//     h = dropout(in) A^T;   out[slice i] += scale * h_i B_i^T
//     dh_i = scale * d_out[slice i] B_i;   d_B_i += scale * d_out[slice i]^T h_i
//     d_A += dh^T dropout(in);   d_in += dropout'(dh A)
//
// Call forward after linear_forward and backward after linear_backward: both add to the existing output. h is saved,
// since it has only r numbers per token, while computing it again would read the whole input. The adapters of a layer
// share one dropout mask (PEFT draws one for each): one pass over the input instead of three, and the same distribution
// for each.

#include <vector>

#include "layers/dropout.h"

namespace colonnade {

/// Weights, or their gradients (sum_dtype).
struct LowRank {
    struct Slice {
        int64_t begin;  ///< first column of `out`
        Tensor b;       ///< [columns, rank]
    };
    Tensor a;                   ///< [slices * rank, in_features]
    std::vector<Slice> slices;  ///< in the order of their A
    double scale = 1;

    bool empty() const { return slices.empty(); }
};

struct LowRankForward {
    Tensor out;  ///< [tokens, out_features], added to
    Tensor h;    ///< [tokens, slices * rank], saved
    Tensor in;   ///< [tokens, in_features]
    const LowRank& weights;
    DropoutMask mask{};  ///< for `in`
    Tensor dropped{};    ///< scratch [tokens, in_features]; empty if mask.p is 0
};
void low_rank_forward(const Context& ctx, const LowRankForward& args);

struct LowRankBackward {
    Tensor din{};              ///< [tokens, in_features], added to; or empty
    const LowRank& gradients;  ///< added to
    Tensor dh;                 ///< scratch [tokens, slices * rank]
    Tensor dout;               ///< [tokens, out_features]
    Tensor h, in;              ///< saved
    const LowRank& weights;
    DropoutMask mask{};
    Tensor dropped{};  ///< scratch, as in forward
};
void low_rank_backward(const Context& ctx, const LowRankBackward& args);

}  // namespace colonnade
