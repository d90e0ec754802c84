#pragma once
// Block: one decoder layer at work on a batch: forward and backward, each a straight list of ops.
//
//     mid = in + o(flashmask(rope(qkv(rmsnorm(in)))));   next = mid + down(swiglu(gate_up(rmsnorm(mid))))
//
// Norms that follow a residual add are fused with it, so a block begins after its input norm and ends before the last
// add: Transformer::forward fuses that with the norm that follows.
//
// If the head reads only some rows (TransformerInput::rows), the last block gathers them from `in` and from the output of
// its attention, and computes only them from the o projection on. Backward scatters the gradients of both; in all other
// rows they are zero.
//
// Every row of the MLP is by itself, so both passes compute it in tiles of ActivationLayout::mlp_tile rows.

#include "attention/flashmask.h"
#include "train/model/transformer.h"

namespace colonnade {

/// What a layer's ops read and write, put together once per layer.
class Block {
  public:
    Block(const Context& ctx, const Transformer& model, const TransformerInput& input, Activations& acts,
          int64_t layer);

    /// Reads `in` and `normed` of its activations, and leaves in acts.delta what is to be added to `mid`.
    void forward(const CacheWrite* cache = nullptr) const;
    /// Turns acts.dstream from the gradient of the block's output into that of its input. If the last block computes only
    /// some rows, the gradient of its output is in acts.dhidden. Overwrites its activations.
    void backward(const ModelGradients& gradients) const;

  private:
    /// [packs, length, heads, head_dim] views of packed rows.
    struct Heads {
        Tensor q, k, v;
    };
    struct LinearGradient {
        Tensor din;  ///< may be empty
        Tensor dout, in;
        int64_t first = 0;  ///< row of the block that their first row is
    };
    /// Some rows of the MLP's tensors. If a tensor has memory for one tile alone, all tiles have that.
    struct Tile {
        int64_t first;
        Tensor in, delta, mid, mid_rstd, mid_normed, gate_up, swiglu;
        Tensor dstream{}, dswiglu{}, dnormed{};  ///< in training
    };
    std::vector<Tile> tiles() const;

    void attention_forward(const CacheWrite* cache) const;
    void swiglu_forward(const Tile& t) const;
    /// If some_rows_: the block's rows of a tensor of all tokens, and the gradient of that.
    void gather(const Tensor& out, const Tensor& in) const;
    void scatter(const Tensor& din, const Tensor& dout) const;
    /// Compute again what backward needs and forward did not keep: up to `mid`, and after it.
    void recompute_attention() const;
    void recompute_swiglu(const Tile& t) const;
    void swiglu_backward(const Tile& t, const BlockParameters& g, Grad matrices) const;
    void attention_backward(const BlockParameters& g, const ModelGradients& gradients) const;
    void heads_backward(const BlockParameters& g) const;

    /// The weight of a linear layer [out, in]. A quantised one is widened, and valid until the next call, or only a shape
    /// if takes_codes().
    Tensor weight(Projection p) const;
    /// Whether products in e4m3 take the codes of a quantised weight as they are.
    bool takes_codes(Projection p) const;
    Fp8Linear fp8(Projection p) const;
    /// Whether a linear layer has adapters and the pass uses them.
    bool adapted(Projection p) const;
    /// A linear layer with its adapters, if adapted(). `first` is the row of the block that their first row is.
    void linear(Projection p, const Tensor& out, const Tensor& in, int64_t first = 0) const;
    void linear_backward(Projection p, const BlockParameters& g, Grad matrices, const LinearGradient& x) const;
    DropoutMask dropout_of(Projection p, int64_t first, int64_t rows) const;

    void norm(const Tensor& out, const Tensor& rstd, const Tensor& in, const Tensor& weight) const;
    /// Adds the gradient through a norm, of acts.dnormed, to that of the residual stream.
    void norm_backward(const Tensor& dstream, const Tensor& dweight, const Tensor& in, const Tensor& rstd,
                       const Tensor& weight) const;
    /// `packed` holds queries and keys next to each other, `values` is the qkv buffer: the same one, unless there is a
    /// q/k norm.
    Heads heads_of(const Tensor& packed, const Tensor& values) const;
    Tensor query_heads(const Tensor& rows) const;
    /// Queries and keys as one tensor of heads [tokens, heads + kv_heads, head_dim]: they are rotated together.
    Tensor queries_and_keys(const Tensor& packed) const;

    const Context& ctx_;
    const ModelConfig& config_;
    const BlockParameters& weights_;
    const TransformerInput& input_;
    Activations& acts_;
    BlockActivations& a_;
    int64_t layer_;
    double scale_;    ///< of attention
    bool some_rows_;  ///< after its attention the block computes only the rows that the head reads
    // Buffers that blocks share, with the rows that this block has after its attention:
    Tensor attention_, delta_;
    Tensor dattention_, dstream_;  ///< in training
};

}  // namespace colonnade
