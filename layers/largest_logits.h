#pragma once
// The tokens with the k largest logits of each row, and their log-probabilities: what a model says as a teacher
// (data/rows/teacher_lists.h).
//
//     log_probs[r][i] = logits[r][ids[r][i]] - log sum_v exp(logits[r][v])
//
// from the largest logit on; of equal logits the one with the smaller id comes first, and stays. If a logit of a row is
// not a number, or none is finite, its ids are -1.

#include "engine/device/context.h"

namespace colonnade {

struct LargestLogits {
    Tensor ids;        ///< i32 [rows, k], k from 1 to the vocabulary, at most max_k
    Tensor log_probs;  ///< f32 [rows, k]
    Tensor logits;     ///< [rows, vocab]: f32, or f64 on the CPU
    static constexpr int64_t max_k = 256;
};
void largest_logits(const Context& ctx, const LargestLogits& args);

}  // namespace colonnade
