#include "train/model/transformer.h"

#include <algorithm>

#include "layers/rmsnorm.h"
#include "train/model/block.h"

namespace colonnade {
namespace {

void call(const LayerHook& hook, int64_t layer) {
    if (hook) hook(layer);
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, const ModelParameters& weights)
    : config_(config),
      weights_(weights),
      frequencies_(rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)) {}

void Transformer::forward(const Context& ctx, const TransformerInput& input, Activations& acts,
                          const CacheWrite* cache) const {
    const int64_t layers = config_.num_hidden_layers;
    require(input.packs == acts.layout.packs && input.length == acts.layout.length,
            "activations are laid out for {} x {} tokens, not {} x {}", acts.layout.packs, acts.layout.length,
            input.packs, input.length);
    require(!acts.layout.rows || (input.rows.rank == 1 && input.rows.numel() == *acts.layout.rows),
            "activations are laid out for {} rows of the head, not {}", acts.layout.head_rows(), input.rows);
    rope_angles(ctx, {.cos = acts.cos, .sin = acts.sin, .positions = input.positions, .frequencies = frequencies_});
    OffloadedInputs none;  // a pass of the base has no backward
    OffloadedInputs& offloaded = input.adapters ? acts.offloaded : none;
    call(input.before_forward, embedding_layer);
    call(input.before_forward, 0);
    BlockActivations& first = acts.blocks[0];
    embedding_forward(ctx, {.out = first.in, .tokens = input.tokens, .weight = weights_.embedding});
    if (!input.noise.scales.empty()) {
        EmbeddingNoise noise = input.noise;
        noise.x = first.in;
        noise.positions = input.positions;
        add_embedding_noise(ctx, noise);
    }
    offloaded.send(0, first.in);
    rmsnorm_forward(ctx, {.out = first.normed,
                          .rstd = first.input_rstd,
                          .in = first.in,
                          .weight = weights_.blocks[0].input_norm,
                          .eps = config_.rms_norm_eps});
    for (int64_t l = 0; l < layers; ++l) {
        Block(ctx, *this, input, acts, l).forward(cache);
        // The residual add is fused with the norm that follows it: that of the next block, or the final one.
        const bool last = l + 1 == layers;
        const int64_t rows = last ? acts.layout.head_rows() : acts.layout.tokens();
        call(input.before_forward, l + 1);
        offloaded.make_room(ctx, l + 1);
        rmsnorm_forward(ctx, {.out = last ? acts.hidden : acts.blocks[l + 1].normed,
                              .rstd = last ? acts.final_rstd : acts.blocks[l + 1].input_rstd,
                              .sum = last ? acts.out : acts.blocks[l + 1].in,
                              .in = acts.blocks[l].mid,
                              .delta = acts.delta.slice(0, 0, rows),
                              .weight = last ? weights_.final_norm : weights_.blocks[l + 1].input_norm,
                              .eps = config_.rms_norm_eps});
        if (!last) offloaded.send(l + 1, acts.blocks[l + 1].in);
    }
}

void Transformer::backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                           const ModelGradients& gradients) const {
    require(acts.layout.training, "backward needs activations laid out for training");
    require(input.adapters, "backward goes through the adapters");
    require(acts.offloaded.blocks() == acts.layout.offloaded_of(config_.num_hidden_layers),
            "the inputs of {} blocks are in host memory, not of {}", acts.offloaded.blocks(),
            acts.layout.offloaded_of(config_.num_hidden_layers));
    rmsnorm_backward(ctx, {.din = acts.layout.rows ? acts.dhidden : acts.dstream,
                           .dweight = gradients.views.final_norm,
                           .dout = acts.dhidden,
                           .in = acts.out,
                           .rstd = acts.final_rstd,
                           .weight = weights_.final_norm,
                           .scratch = acts.scratch});
    call(input.after_backward, config_.num_hidden_layers);
    const int64_t lowest = std::max<int64_t>(gradients.lowest, 0);
    for (int64_t l = config_.num_hidden_layers - 1; l >= lowest; --l) {
        acts.offloaded.await(ctx, l);
        call(input.before_backward, l);
        Block(ctx, *this, input, acts, l).backward(gradients);
        if (l - 2 >= lowest) acts.offloaded.fetch(l - 2, acts.blocks[l - 2].in);
        call(input.after_backward, l);
    }
    const Tensor& embedding = gradients.views.embedding;
    if (gradients.embedding && !embedding.empty())
        embedding_backward(ctx, {.dweight = embedding, .dout = acts.dstream, .index = input.token_index});
    call(input.after_backward, embedding_layer);
}

}  // namespace colonnade
