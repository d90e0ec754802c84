#pragma once
// The decoder: forward and backward over packed rows.
//
//     x = embedding(tokens)
//     per layer:  x += o(flashmask(rope(qkv(rmsnorm(x)))));   x += down(swiglu(gate_up(rmsnorm(x))))
//     hidden = rmsnorm(x)
//
// A layer is in train/model/block.h. The head belongs to the objective (train/objectives/objective.h), which reads only
// some of the rows: those of answers, but not those of prompts. For all other rows nothing after the keys and values of
// the last block matters, so the last block leaves them out after its attention.

#include <functional>

#include "layers/embedding.h"
#include "layers/embedding_noise.h"
#include "layers/rope.h"
#include "train/model/activations.h"
#include "train/model/attention_masks.h"
#include "train/model/kv_cache.h"

namespace colonnade {

/// Called with a layer: a block's index, embedding_layer, or num_hidden_layers for the final norm with the head.
using LayerHook = std::function<void(int64_t layer)>;

/// What a pass reads.
struct TransformerInput {
    int64_t packs = 0, length = 0;
    Tensor tokens;     ///< i32 [packs * length]
    Tensor positions;  ///< i32 [packs * length]
    /// The rows that the head reads, and that acts.hidden has: i32 [ActivationLayout::rows], ascending; a row may be there
    /// several times. Ignored if the activations are laid out for all rows.
    Tensor rows{};
    TokenIndex token_index{};  ///< for backward
    AttentionMasks masks{};
    /// false: the base model, as if it had no adapters; the reference of DPO. Forward only. A head that is trained
    /// (LoraSettings::head) stays.
    bool adapters = true;
    /// Dropout on the input of adapters. `stream` belongs to the micro-step; its low 14 bits are free, for the layer
    /// and the projection.
    DropoutMask dropout{};
    /// NEFTune in training: scales, streams and seed. Without scales there is none.
    EmbeddingNoise noise{};
    LayerHook before_forward{};   ///< the layer's weights are about to be read
    LayerHook before_backward{};  ///< its weights are about to be read, and its gradients added to. Only of blocks
    LayerHook after_backward{};   ///< the gradients of the layer's parameters are final
};

class Transformer {
  public:
    /// Keeps a reference to `config`.
    Transformer(const ModelConfig& config, const ModelParameters& weights);
    Transformer(const Transformer&) = delete;
    Transformer& operator=(const Transformer&) = delete;

    /// Fills acts.hidden (and, in training, all that backward needs). With a cache keys and values go there, too.
    /// On the CPU throws Exit::internal for a row outside the batch.
    void forward(const Context& ctx, const TransformerInput& input, Activations& acts,
                 const CacheWrite* cache = nullptr) const;

    /// Computes the gradients that have a view, from acts.dhidden, down to gradients.lowest. Overwrites activations and
    /// acts.dhidden.
    void backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                  const ModelGradients& gradients) const;

    const ModelConfig& config() const { return config_; }
    const ModelParameters& weights() const { return weights_; }
    const RopeFrequencies& frequencies() const { return frequencies_; }

  private:
    const ModelConfig& config_;
    ModelParameters weights_;
    RopeFrequencies frequencies_;
};

}  // namespace colonnade
