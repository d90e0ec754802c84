#pragma once
// The language model objective: weighted cross-entropy over the batch's target list. Gathers the rows that carry a
// target, runs the head on them in chunks (layers/head_loss.h) and hands the gradient of the hidden states back.
//
//     loss = sum_i weight_i * nll_i / total_weight
//
// total_weight is that of the whole global step (all micro-steps and ranks), so the parts simply add up.

#include <span>

#include "data/batch.h"
#include "train/transformer.h"

namespace colonnade {

/// Sums over targets; two of them add up to those of both.
struct LossSums {
    double nll = 0;  ///< weighted
    double weight = 0;
    double correct = 0;  ///< weighted count of targets that had the largest logit
    LossSums& operator+=(const LossSums& other);
    double mean() const { return weight > 0 ? nll / weight : 0; }
    double accuracy() const { return weight > 0 ? correct / weight : 0; }
};

struct ObjectiveBuffers {
    Tensor hidden, dhidden;  ///< [targets, hidden] gathered rows; dhidden only in training
    Tensor logits;           ///< [chunk, vocab]
    static ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, int64_t targets, int64_t chunk,
                                    DType dtype, bool training);
};

/// Forward only where `gradients` is null; else fills acts.dhidden and adds the head's gradient. `nll`, where given,
/// receives each target's unweighted loss.
LossSums language_model_loss(const Context& ctx, const Transformer& model, Activations& acts,
                             const ObjectiveBuffers& buffers, const Batch& batch, double total_weight,
                             const ModelParameters* gradients, std::vector<double>* nll = nullptr);

}  // namespace colonnade
