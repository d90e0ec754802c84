#pragma once
// Low-rank adapters of a linear layer (LoRA, arXiv 2106.09685) whose weight is frozen, also of a packed one: q, k and v
// each have a pair A_i, B_i of their own, on their slice of the columns of `out`. The A of all lie one above the other,
// so that they are one product:
//
//     h = dropout(in) A^T;   out[slice i] += scale * h_i B_i^T
//     dh_i = scale * d_out[slice i] B_i;   d_B_i += scale * d_out[slice i]^T h_i
//     d_A += dh^T dropout(in);   d_in += dropout'(dh A)
//
// Forward comes after linear_forward, backward after linear_backward: both add to what is there. h is saved: r numbers a
// token, where computing it again would read the whole input. The pairs of a layer share one dropout mask (PEFT draws one
// for each): one pass over the input instead of three, and each pair sees the same distribution.

#include <vector>

#include "layers/dropout.h"

namespace colonnade {

/// Weights, or their gradients (sum_dtype).
struct LowRank {
    struct Slice {
        int64_t begin;  ///< first of its columns of `out`
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
    DropoutMask mask{};  ///< of `in`
    Tensor dropped{};    ///< scratch [tokens, in_features]; where mask.p is 0: empty
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
