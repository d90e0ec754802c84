#pragma once
// The language model objective: weighted cross-entropy over the batch's target list. Gathers the rows that carry a
// target, runs the head on them in chunks (layers/head_loss.h) and hands the gradient of the hidden states back.
//
//     loss = sum_i weight_i * nll_i / total_weight
//
// total_weight is that of the whole global step (all micro-steps and ranks), so the parts simply add up.

#include "train/batch_tensors.h"
#include "train/loss_sums.h"
#include "train/transformer.h"

namespace colonnade {

struct ObjectiveBuffers {
    Tensor hidden, dhidden;  ///< [targets, hidden] gathered rows; dhidden only in training
    Tensor logits;           ///< [chunk, vocab]
    Tensor nll;              ///< f64 [targets], unweighted
    Tensor correct;          ///< u8 [targets]
    static ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, int64_t targets, int64_t chunk,
                                    DType dtype, bool training);
};

/// Forward only where `gradients` is null; else fills acts.dhidden and adds the head's gradient (or overwrites it). Leaves each target's
/// loss in buffers.nll and adds the batch's to `sums` (f64 [3], train/loss_sums.h).
void language_model_loss(const Context& ctx, const Transformer& model, Activations& acts,
                         const ObjectiveBuffers& buffers, const BatchTensors& batch, const Tensor& sums,
                         const ModelGradients* gradients);

}  // namespace colonnade
