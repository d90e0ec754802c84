#pragma once
// The decoder: forward and backward over packed rows, written as the straight list of ops they are.
//
//     x = embedding(tokens)
//     per layer:  x += o(flashmask(rope(qkv(rmsnorm(x)))));   x += down(swiglu(gate_up(rmsnorm(x))))
//     hidden = rmsnorm(x)
//
// The head belongs to the objective (train/objectives/objective.h), which runs it only where there is something to predict.

#include <functional>

#include "attention/flashmask.h"
#include "engine/device/arena.h"
#include "layers/embedding.h"
#include "layers/rope.h"
#include "train/model/lora.h"
#include "train/model/recompute.h"

namespace colonnade {

/// One mask per distinct sliding window of the model, with its tile plan, for a batch.
class AttentionMasks {
  public:
    /// Memory of the GPU plans, one per distinct window; nothing on the CPU.
    struct Memory {
        std::vector<GpuTilePlan> plans;
        static Memory lay_out(Arena& arena, const ModelConfig& config, int64_t packs, int64_t length);
    };
    /// `positions`: [batch, rows] of the mask, what sliding windows count by; without them they count rows.
    AttentionMasks(const Context& ctx, const ModelConfig& config, const ColumnMask& mask, const Memory& memory = {},
                   std::span<const int32_t> positions = {});
    struct Entry {
        ColumnMask mask;
        TilePlan plan;
    };
    const Entry& of_layer(int64_t layer) const { return entries_[index_[static_cast<size_t>(layer)]]; }

  private:
    std::vector<Entry> entries_;
    std::vector<size_t> index_;  ///< [layers]
};

/// For what runs beside the passes and wants to know how far they are. Beside the layers there are the embedding and, as
/// layer num_hidden_layers, the final norm with the head.
constexpr int64_t embedding_layer = -1;
struct LayerHooks {
    std::function<void(int64_t layer)> before_forward{};  ///< the layer's weights are about to be read
    std::function<void(int64_t layer)> after_backward{};  ///< the gradients of the layer's own parameters are final
};

/// What a forward pass reads.
struct TransformerInput {
    int64_t packs = 0, length = 0;
    Tensor tokens;             ///< i32 [packs * length]
    Tensor positions;          ///< i32 [packs * length]
    TokenIndex token_index{};  ///< for backward
    const AttentionMasks& masks;
    /// false: the base model alone, as if there were no adapters; what DPO's reference is. Forward only; a
    /// head that is trained (LoraSettings::head) stays.
    bool adapters = true;
    /// Of the adapters' input. `stream` is the step's: its low 14 bits are free, for the layer and the product.
    DropoutMask dropout{};
    const LayerHooks& hooks = no_hooks;
    static inline const LayerHooks no_hooks{};

    void before_forward(int64_t layer) const {
        if (hooks.before_forward) hooks.before_forward(layer);
    }
    void after_backward(int64_t layer) const {
        if (hooks.after_backward) hooks.after_backward(layer);
    }
};

/// Keys and values of what was already read, for generation: one pack.
struct KvCache {
    std::vector<Tensor> k, v;  ///< per layer [1, capacity, kv_heads, head_dim]
    int64_t length = 0;        ///< tokens held
    static KvCache lay_out(Arena& arena, const ModelConfig& config, int64_t capacity, DType dtype);
};

/// Activations of one block. In training every layer has its own, kept for backward, except what is recomputed; in
/// inference all layers share one. Statistics (rstd, lse) are of the dtype's sum_dtype.
struct BlockActivations {
    Tensor in;              ///< [tokens, hidden] residual stream
    Tensor input_rstd;      ///< [tokens]
    Tensor normed;          ///< [tokens, hidden]
    Tensor qkv;             ///< [tokens, qkv width]; rotated in place unless there is a q/k norm
    Tensor qk;              ///< with q/k norm only: normed and rotated [tokens, heads + kv_heads, head_dim]
    Tensor q_rstd, k_rstd;  ///< with q/k norm only: [tokens * heads], [tokens * kv_heads]
    Tensor attention, lse;  ///< [tokens, query width], [packs, heads, length]
    Tensor mid;             ///< [tokens, hidden] residual stream after attention
    Tensor mid_rstd;
    Tensor mid_normed;       ///< [tokens, hidden]
    Tensor gate_up, swiglu;  ///< [tokens, 2 * intermediate], [tokens, intermediate]
    /// Of the adapters, by Product: [tokens, LoraSettings::width].
    std::array<Tensor, products> h;
};

struct Activations {
    int64_t packs = 0, length = 0;
    bool training = true;
    Recompute recompute = Recompute::none;
    Tensor cos, sin;  ///< [tokens, head_dim / 2]
    std::vector<BlockActivations> blocks;
    Tensor out;  ///< [tokens, hidden] residual stream after the last block
    Tensor final_rstd;
    Tensor hidden;  ///< [tokens, hidden] after the final norm
    Tensor branch;  ///< [tokens, hidden] what a block adds to the stream
    /// With adapters and dropout: room for the widest input of an adapted product.
    Tensor dropped;
    // Backward only.
    Tensor dhidden;  ///< [tokens, hidden] given by the objective
    Tensor dstream;  ///< [tokens, hidden] gradient of the residual stream
    Tensor dqkv, dattention, dswiglu, dnormed;
    /// With adapters: room for the largest h.
    Tensor dh;
    Tensor scratch;  ///< GPU: u8, of the kernels of backward

    static Activations lay_out(Arena& arena, const ModelConfig& config, int64_t packs, int64_t length, DType dtype,
                               bool training, Recompute recompute = Recompute::none,
                               const LoraSettings* lora = nullptr);
};

class Transformer {
  public:
    Transformer(const ModelConfig& config, const ModelParameters& weights);

    /// Fills acts.hidden (and, in training, all that backward needs). With a cache (one pack, inference) keys and
    /// values are appended to it and attention sees all of it; the caller advances cache->length.
    void forward(const Context& ctx, const TransformerInput& input, Activations& acts, KvCache* cache = nullptr) const;

    /// From acts.dhidden: adds to `gradients` those that have a place there (or overwrites them); the others are not
    /// computed. Overwrites activations.
    void backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                  const ModelGradients& gradients) const;

    const ModelConfig& config() const { return config_; }
    const ModelParameters& weights() const { return weights_; }

  private:
    /// [packs, length, heads, head_dim] views of packed rows.
    struct Heads {
        Tensor q, k, v;
    };
    Heads heads_of(const Tensor& packed, const Tensor& values, int64_t packs, int64_t length) const;
    Tensor queries_and_keys(const Tensor& packed) const;
    /// A block up to SwiGLU, from its `in` and `normed`: what backward can do again.
    void block_forward(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                       KvCache* cache) const;
    /// Fills what backward of this block needs and was not kept.
    void recompute_block(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer) const;
    void attention_forward(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                           KvCache* cache) const;
    void attention_backward(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                            const BlockParameters& gradients, Grad matrices) const;
    /// Whether adapt() does anything.
    bool adapted(const TransformerInput& input, int64_t layer, Product product) const;
    /// The adapters of a product, where there are any: after its linear layer, with the same input and output.
    void adapt(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer, Product product,
               const Tensor& out, const Tensor& in) const;
    struct AdapterGradients {
        Tensor din, dout, in;
    };
    void adapt_backward(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                        Product product, const BlockParameters& gradients, const AdapterGradients& args) const;

    const ModelConfig& config_;
    ModelParameters weights_;
    RopeFrequencies frequencies_;
    double scale_;
};

}  // namespace colonnade
