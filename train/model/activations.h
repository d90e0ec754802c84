#pragma once
// Activations: what a forward pass keeps for backward, and the buffers that both use.

#include <algorithm>
#include <optional>

#include "engine/device/arena.h"
#include "layers/fp8_product.h"
#include "train/model/lora.h"
#include "train/model/offloaded_inputs.h"
#include "train/model/recompute.h"

namespace colonnade {

struct ActivationLayout {
    int64_t packs = 1, length = 1;
    DType dtype = DType::f32;
    /// How many rows the head reads (TransformerInput::rows). They may be more than the tokens, because a row may be there
    /// several times. Without a number the head reads all rows.
    std::optional<int64_t> rows{};
    bool training = false;  ///< false: forward only, and all blocks share their activations
    Recompute recompute = Recompute::none;
    std::optional<LoraSettings> lora{};
    bool quantised = false;  ///< the weights of blocks are (LinearParameters::quantised)
    bool fp8 = false;        ///< the linear layers of blocks multiply in e4m3 (layers/fp8_product.h)
    int64_t lowest = 0;      ///< backward ends at this layer: the blocks below share their activations, too
    int64_t offloaded = 0;   ///< blocks whose input goes to host memory, from the lowest that backward reaches; at most

    /// Rows of an MLP that are computed at a time. What is not kept for backward has memory for these rows only. Bits depend
    /// on this number, but not on what is recomputed. A GPU reaches its full rate of products with fewer rows than that.
    int64_t mlp_tile = 16384;

    int64_t tokens() const { return packs * length; }
    /// Rows of everything after the last attention.
    int64_t head_rows() const { return rows.value_or(tokens()); }
    int64_t most_rows() const { return std::max(tokens(), head_rows()); }
    int64_t lowest_block() const { return std::max<int64_t>(lowest, 0); }
    /// The number of blocks whose input goes to host memory, for a model of `blocks` blocks. The last two inputs never have
    /// to leave the device.
    int64_t offloaded_of(int64_t blocks) const {
        return training ? std::clamp<int64_t>(offloaded, 0, std::max<int64_t>(blocks - lowest_block() - 2, 0)) : 0;
    }
};

/// Activations of one block. In training every block keeps its own for backward, except those that are recomputed:
/// these are shared by all blocks, and those of an MLP have the rows of one tile. Statistics (rstd, lse) have the dtype's
/// sum_dtype. The last block has head_rows() rows after its attention: `mid` and all below it, and lora_h of every
/// projection but qkv.
struct BlockActivations {
    Tensor in;                     ///< [tokens, hidden] residual stream; may be shared (OffloadedInputs)
    Tensor input_rstd;             ///< [tokens]
    Tensor normed;                 ///< [tokens, hidden]
    Tensor qkv;                    ///< [tokens, qkv width]; rotated in place unless there is a q/k norm
    Tensor qk;                     ///< with q/k norm: normed and rotated [tokens, heads + kv_heads, head_dim]
    Tensor q_rstd, k_rstd;         ///< with q/k norm: [tokens * heads], [tokens * kv_heads]
    Tensor attention, lse;         ///< [tokens, query width], [packs, heads, length]
    Tensor mid;                    ///< [tokens, hidden] residual stream after attention
    Tensor mid_rstd;               ///< [tokens]
    Tensor mid_normed;             ///< [tokens, hidden]
    Tensor gate_up;                ///< [tokens, 2 * intermediate]; backward overwrites it with its gradient
    Tensor swiglu;                 ///< [tokens, intermediate]
    PerProjection<Tensor> lora_h;  ///< with adapters: [tokens, LoraSettings::width]
};

/// Buffers of most_rows(): a block uses the first tokens() or head_rows() of them.
struct Activations {
    ActivationLayout layout;
    Tensor cos, sin;  ///< [tokens, head_dim / 2]
    std::vector<BlockActivations> blocks;
    OffloadedInputs offloaded;  ///< of blocks; laid out by its owner, because it is in another arena
    Tensor out;                 ///< [head rows, hidden] residual stream after the last block
    Tensor final_rstd;          ///< [head rows]
    Tensor hidden;              ///< [head rows, hidden] after the final norm
    Tensor delta;               ///< [most rows, hidden] what half a block adds to the residual stream
    Tensor dropped;             ///< with dropout: room for the widest input of an adapter
    Tensor weight;              ///< with quantised weights: room for the largest projection
    Fp8Room fp8;                ///< with ActivationLayout::fp8
    /// With ActivationLayout::rows: the rows of the last block's attention that are read [head rows, query width].
    Tensor attention_rows;

    // Backward only.
    Tensor dhidden;     ///< [head rows, hidden] given by the objective; then the stream's gradient in the last block
    Tensor dstream;     ///< [tokens, hidden] gradient of the residual stream
    Tensor dqkv;        ///< [tokens, qkv width]
    Tensor dattention;  ///< [tokens, query width]
    Tensor dattention_rows;   ///< as attention_rows
    Tensor dswiglu, dnormed;  ///< [tile of the MLP, intermediate], [most rows, hidden]
    Tensor dlora_h;           ///< with adapters: room for the largest lora_h
    Tensor scratch;           ///< GPU: u8, scratch of the backward kernels

    static Activations lay_out(Arena& arena, const ModelConfig& config, const ActivationLayout& layout);
};

}  // namespace colonnade
