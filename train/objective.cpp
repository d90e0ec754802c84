#include "train/objective.h"

#include "layers/gather.h"
#include "layers/head_loss.h"

namespace colonnade {

LossSums& LossSums::operator+=(const LossSums& other) {
    nll += other.nll;
    weight += other.weight;
    correct += other.correct;
    return *this;
}

ObjectiveBuffers ObjectiveBuffers::lay_out(Arena& arena, const ModelConfig& config, int64_t targets, int64_t chunk,
                                           DType dtype, bool training) {
    ObjectiveBuffers b;
    b.hidden = arena.tensor("head", dtype, {targets, config.hidden_size});
    if (training) b.dhidden = arena.tensor("head", dtype, {targets, config.hidden_size});
    b.logits = arena.tensor("head", dtype, {chunk, config.vocab_size});
    return b;
}

LossSums language_model_loss(const Context& ctx, const Transformer& model, Activations& acts,
                             const ObjectiveBuffers& buffers, const Batch& batch, double total_weight,
                             const ModelParameters* gradients, std::vector<double>* nll_out) {
    const size_t count = batch.rows.size();
    std::vector<double> nll(count);
    std::vector<uint8_t> correct(count);
    std::vector<double> scales(count);
    // A step in which nothing is learned has total weight 0: its gradient is exactly 0, not 0 / 0.
    const double scale = total_weight > 0 ? 1 / total_weight : 0;
    for (size_t i = 0; i < count; ++i) scales[i] = static_cast<double>(batch.weights[i]) * scale;

    HeadLoss head{.nll = nll,
                  .correct = correct,
                  .dhidden = {},
                  .dweight = {},
                  .logits = buffers.logits,
                  .hidden = buffers.hidden,
                  .weight = model.weights().head,
                  .targets = batch.targets,
                  .scales = scales};
    if (gradients) {
        head.dhidden = buffers.dhidden;
        head.dweight = gradients->head;
    }
    gather_rows(ctx, {.out = buffers.hidden, .in = acts.hidden, .rows = batch.rows});
    head_loss(ctx, head);
    if (gradients) scatter_rows(ctx, {.din = acts.dhidden, .dout = buffers.dhidden, .rows = batch.rows});

    LossSums sums;
    for (size_t i = 0; i < count; ++i) {
        const double weight = batch.weights[i];
        sums += {weight * nll[i], weight, weight * correct[i]};
    }
    if (nll_out) *nll_out = std::move(nll);
    return sums;
}

}  // namespace colonnade
