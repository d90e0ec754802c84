#pragma once
// Language model head and weighted cross-entropy in one op. It works in chunks, so that the logits of a whole batch are
// never in memory:
//
//     logits = h W^T / temperature;   nll_i = logsumexp(logits_i) - logits_i[target_i]
//     d_logits_i = scale_i * (softmax(logits_i) - onehot(target_i));   d_h = d_logits W / temperature
//     d_W (+)= d_logits^T h / temperature
//
// scale_i is d loss / d nll_i. It may be given: the target's weight divided by the weight of the whole global step, so
// losses and gradients of micro-steps and ranks are simply summed. TokenLoss::dft multiplies it by the probability of
// the target. Or it is computed from nll_i, for the losses of policy gradients whose ratio is of tokens
// (layers/policy_terms.h). Or the loss of a target is scale_i times a weighted sum of the divergence from a teacher
// (layers/distillation_formulas.h) and of nll_i. Forward and backward run together; with neither dhidden nor dweight it only evaluates.
//
// On a GPU logits and d_logits are bf16, softmax and nll are computed from them in f32, and targets are not checked:
// the host checks them before it uploads them.

#include <optional>

#include "engine/device/context.h"
#include "layers/distillation_formulas.h"
#include "layers/gradient.h"
#include "layers/policy_terms.h"

namespace colonnade {

/// The k tokens that are most probable to a teacher at each target.
struct TeacherTokens {
    Tensor divergences;        ///< f64 [targets], unweighted; 0 for an empty list
    Tensor ids;                ///< i32 [targets, k], k <= max_k: distinct tokens, then -1 if the list is shorter
    Tensor log_probs;          ///< f32 [targets, k]: finite
    double beta = 0;           ///< 0 is the forward KL, 1 the reverse KL
    double weight = 1;         ///< of the divergence in d_logits ...
    double target_weight = 0;  ///< ... beside the nll of the target
    static constexpr int64_t max_k = 256;
};

struct HeadLoss {
    Tensor nll;        ///< f64 [targets], unweighted
    Tensor correct{};  ///< u8 [targets], 1 if no logit is larger than the target's; or empty
    Tensor entropy{};  ///< f64 [targets], of the softmax, in nats; or empty
    Tensor dhidden{};  ///< [targets, hidden], overwritten; or empty
    Tensor dweight{};  ///< sum_dtype [vocab, hidden]; or empty
    Grad dweight_mode = Grad::accumulate;
    Tensor logits;    ///< scratch [chunk, vocab]: its number of rows is the chunk size
    Tensor hidden;    ///< [targets, hidden], after the final norm
    Tensor weight;    ///< [vocab, hidden]
    Tensor targets;   ///< i32 [targets], each in [0, vocab); the CPU throws Exit::data
    Tensor scales{};  ///< f64 [targets]; zero gives an exactly zero gradient. May be empty in evaluation
    TokenLoss token_loss = TokenLoss::nll;
    std::optional<PolicyTerms> policy{};     ///< takes the place of scales and token_loss; RatioLevel::token
    std::optional<TeacherTokens> teacher{};  ///< d_logits is the gradient of scale_i (weight D_i + target_weight nll_i)
    double temperature = 1;                  ///< above 0
};
void head_loss(const Context& ctx, const HeadLoss& args);

/// scale_i from a given scale, for both devices. 0 stays 0 even if nll is not finite.
COLONNADE_HOST_DEVICE inline double given_scale(TokenLoss loss, double scale, double nll) {
    return loss == TokenLoss::nll || scale == 0 ? scale : -scale * token_loss(loss, -nll).slope;
}

}  // namespace colonnade
