#pragma once
// Language model head and weighted cross-entropy in one op. It works in chunks, so that the logits of a whole batch are
// never in memory:
//
//     logits = h W^T;   nll_i = logsumexp(logits_i) - logits_i[target_i]
//     d_logits_i = scale_i * (softmax(logits_i) - onehot(target_i));   d_h = d_logits W;   d_W (+)= d_logits^T h
//
// scale_i is the target's weight divided by the weight of the whole global step, so losses and gradients of micro-steps
// and ranks are simply summed. Forward and backward run together; with neither dhidden nor dweight it only evaluates.
//
// On a GPU logits and d_logits are bf16, softmax and nll are computed from them in f32, and targets are not checked:
// the host checks them before it uploads them.

#include "engine/device/context.h"
#include "layers/gradient.h"

namespace colonnade {

struct HeadLoss {
    Tensor nll;        ///< f64 [targets], unweighted
    Tensor correct{};  ///< u8 [targets], 1 if no logit is larger than the target's; or empty
    Tensor dhidden{};  ///< [targets, hidden], overwritten; or empty
    Tensor dweight{};  ///< sum_dtype [vocab, hidden]; or empty
    Grad dweight_mode = Grad::accumulate;
    Tensor logits;    ///< scratch [chunk, vocab]: its number of rows is the chunk size
    Tensor hidden;    ///< [targets, hidden], after the final norm
    Tensor weight;    ///< [vocab, hidden]
    Tensor targets;   ///< i32 [targets], each in [0, vocab); the CPU throws Exit::data
    Tensor scales{};  ///< f64 [targets]; zero gives an exactly zero gradient. May be empty in evaluation
};
void head_loss(const Context& ctx, const HeadLoss& args);

}  // namespace colonnade
