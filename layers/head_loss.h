#pragma once
// Language model head and weighted cross-entropy in one op, in chunks, so that the logits of a batch never exist whole:
//
//     logits = h W^T;   nll_i = logsumexp(logits_i) - logits_i[target_i]
//     d_logits_i = scale_i * (softmax(logits_i) - onehot(target_i));   d_h = d_logits W;   d_W += d_logits^T h
//
// scale_i is the target's weight over the weight of the whole global step, so losses and gradients of micro-steps and
// ranks simply add up. Forward and backward happen together; with neither dhidden nor dweight it is evaluation only.

#include <span>

#include "engine/context.h"

namespace colonnade {

struct HeadLoss {
    std::span<double> nll;             ///< [targets], unweighted
    std::span<uint8_t> correct;        ///< [targets], 1 where no logit is larger than the target's; or empty
    Tensor dhidden;                    ///< [targets, hidden], overwritten; or empty
    Tensor dweight;                    ///< [vocab, hidden], accumulated; or empty
    Tensor logits;                     ///< scratch [chunk, vocab]: its rows decide the chunk
    Tensor hidden;                     ///< [targets, hidden], after the final norm
    Tensor weight;                     ///< [vocab, hidden]
    std::span<const int32_t> targets;  ///< each in [0, vocab): checked, throws Exit::data
    std::span<const double>
        scales;  ///< [targets]; a zero scale gives an exactly zero gradient. May be empty in evaluation
};
void head_loss(const Context& ctx, const HeadLoss& args);

}  // namespace colonnade
