#pragma once
// The head of a reward model: one score per answer, from the hidden state of its last token.
//
//     score_b = h_b . w;   d_h_b = d_score_b w;   d_w += sum_b d_score_b h_b
//
// All sums are in double, which is cheap because there are few answers.

#include "engine/device/context.h"

namespace colonnade {

struct ScoreForward {
    Tensor scores;  ///< f64 [answers]
    Tensor hidden;  ///< [answers, hidden], after the final norm
    Tensor weight;  ///< [1, hidden]
};
void score_forward(const Context& ctx, const ScoreForward& args);

struct ScoreBackward {
    Tensor dhidden;    ///< [answers, hidden], overwritten
    Tensor dweight{};  ///< sum_dtype [1, hidden], accumulated; or empty
    Tensor dscores;    ///< f64 [answers]
    Tensor hidden;     ///< [answers, hidden]
    Tensor weight;     ///< [1, hidden]
};
void score_backward(const Context& ctx, const ScoreBackward& args);

}  // namespace colonnade
