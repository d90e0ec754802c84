#include "train/objective.h"

#include "layers/gather.h"
#include "layers/head_loss.h"

namespace colonnade {

ObjectiveBuffers ObjectiveBuffers::lay_out(Arena& arena, const ModelConfig& config, int64_t targets, int64_t chunk,
                                           DType dtype, bool training) {
    ObjectiveBuffers b;
    b.hidden = arena.tensor("head", dtype, {targets, config.hidden_size});
    if (training) b.dhidden = arena.tensor("head", dtype, {targets, config.hidden_size});
    b.logits = arena.tensor("head", dtype, {chunk, config.vocab_size});
    b.nll = arena.tensor("head", DType::f64, {targets});
    b.correct = arena.tensor("head", DType::u8, {targets});
    return b;
}

void language_model_loss(const Context& ctx, const Transformer& model, Activations& acts,
                         const ObjectiveBuffers& buffers, const BatchTensors& batch, const Tensor& sums,
                         const ModelGradients* gradients) {
    gather_rows(ctx, {.out = buffers.hidden, .in = acts.hidden, .rows = batch.rows});
    head_loss(ctx, {.nll = buffers.nll,
                    .correct = buffers.correct,
                    .dhidden = gradients ? buffers.dhidden : Tensor(),
                    .dweight = gradients ? gradients->head : Tensor(),
                    .dweight_mode = gradients ? gradients->matrices : Grad::accumulate,
                    .logits = buffers.logits,
                    .hidden = buffers.hidden,
                    .weight = model.weights().head,
                    .targets = batch.targets,
                    .scales = batch.scales});
    if (gradients) scatter_rows(ctx, {.din = acts.dhidden, .dout = buffers.dhidden, .rows = batch.rows});
    add_loss_sums(ctx, {.sums = sums, .nll = buffers.nll, .correct = buffers.correct, .weights = batch.weights});
}

}  // namespace colonnade
