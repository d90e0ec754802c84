#pragma once
// Language model head and weighted cross-entropy in one op, in chunks, so that the logits of a batch never exist whole:
//
//     logits = h W^T;   nll_i = logsumexp(logits_i) - logits_i[target_i]
//     d_logits_i = scale_i * (softmax(logits_i) - onehot(target_i));   d_h = d_logits W;   d_W (+)= d_logits^T h
//
// scale_i is the target's weight over the weight of the whole global step, so losses and gradients of micro-steps and
// ranks simply add up. Forward and backward happen together; with neither dhidden nor dweight it is evaluation only.
//
// On a GPU logits and d_logits are bf16, softmax and nll are computed in f32 from there, and targets are not checked:
// the host knew them and checked them before they went there.

#include "engine/device/context.h"
#include "layers/gradient.h"

namespace colonnade {

struct HeadLoss {
    Tensor nll;        ///< f64 [targets], unweighted
    Tensor correct{};  ///< u8 [targets], 1 where no logit is larger than the target's; or empty
    Tensor dhidden{};  ///< [targets, hidden], overwritten; or empty
    Tensor dweight{};  ///< sum_dtype [vocab, hidden]; or empty
    Grad dweight_mode = Grad::accumulate;
    Tensor logits;    ///< scratch [chunk, vocab]: its rows decide the chunk
    Tensor hidden;    ///< [targets, hidden], after the final norm
    Tensor weight;    ///< [vocab, hidden]
    Tensor targets;   ///< i32 [targets], each in [0, vocab): on the CPU throws Exit::data
    Tensor scales{};  ///< f64 [targets]; a zero scale gives an exactly zero gradient. May be empty in evaluation
};
void head_loss(const Context& ctx, const HeadLoss& args);

}  // namespace colonnade
