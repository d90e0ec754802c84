#pragma once
// Decoder: a model at work on many sequences at once, with a cache of keys and values. Two kinds of pass:
//
//     read()   prompts, or the next piece of one: the forward pass of training (train/model/transformer.h), FlashMask
//     step()   one token for each of some sequences: every weight is read once, attention runs over the cache, and the
//              next tokens are drawn on the device
//
// CPU: activations and cache in f32; matrices are f32 or bf16. GPU: all in bf16; a step is a CUDA graph, recorded once
// for every number of sequences and power of two of their length, and the host reads tokens while later steps run.
// Adapters stay apart from the weights.

#include <deque>
#include <map>
#include <span>

#include "engine/device/gpu_graph.h"
#include "layers/decode_linear.h"
#include "layers/sampling.h"
#include "train/model/transformer.h"

namespace colonnade {

struct DecoderOptions {
    KvCache::Sizes cache{};
    int64_t piece = 512;  ///< most tokens of a read()
    std::optional<LoraSettings> lora{};
    Gpu* gpu = nullptr;  ///< null: the CPU
};

class Decoder {
  public:
    /// Keeps a reference to `config`. On the CPU norms, biases and adapters are f32, matrices f32 or bf16; on a GPU all
    /// of `weights` is bf16 there. Matrices may be quantised. Throws Exit::memory if the cache does not fit.
    Decoder(const ModelConfig& config, const ModelParameters& weights, const DecoderOptions& options);
    /// The memory plan on a device that this machine need not have.
    static Arena plan(const ModelConfig& config, const DecoderOptions& options, DType matrices, Device device,
                      bool quantised = false);

    const DecoderOptions& options() const { return options_; }
    const ModelConfig& config() const { return model_.config(); }

    struct Piece {
        int64_t slot = 0, begin = 0;  ///< its first token has this position
        std::span<const int32_t> tokens{};
    };
    /// Reads pieces, of at most options().piece tokens together; several only if all of them begin at 0. Returns the
    /// last hidden states [tokens, hidden], valid until the next read(). Throws Exit::data for a token outside the
    /// vocabulary.
    Tensor read(const Context& ctx, std::span<const Piece> pieces);
    /// Logits f32 [rows, vocab] of at most rows() hidden states, valid until the next call or step.
    Tensor logits(const Context& ctx, const Tensor& hidden);
    /// The same for some rows of `hidden`.
    Tensor logits_of(const Context& ctx, const Tensor& hidden, const std::vector<int32_t>& rows);
    int64_t rows() const { return buffers_.x.size(0); }

    /// A sequence of the next steps.
    struct Row {
        int64_t slot = 0;
        int32_t token = 0, position = 0;  ///< the token that the next step reads, and its place
        int32_t drawn = 0;                ///< tokens drawn so far
        Sampling sampling{};
    };
    /// Tokens that a slot's repetition penalty knows.
    void set_seen(const Context& ctx, int64_t slot, std::span<const int32_t> tokens);
    void set_rows(const Context& ctx, std::span<const Row> rows);
    /// Draws tokens from logits of all rows, as a step does.
    void sample(const Context& ctx, const Tensor& logits);
    /// Reads the rows' tokens and draws the next ones. Enqueues on a GPU.
    void step(const Context& ctx);
    /// Steps and samples whose tokens have not been taken.
    int64_t waiting() const { return static_cast<int64_t>(options_.gpu ? pending_.size() : drawn_.size()); }
    /// The tokens of the oldest of them, one per row. Throws Exit::numerics if a logit was not a number.
    std::vector<int32_t> take();
    /// The logits of the last step [rows, vocab].
    Tensor last_logits() const { return buffers_.logits.slice(0, 0, count_); }

  private:
    struct Buffers {
        Tensor x;  ///< [rows, hidden] residual stream
        Tensor qkv, attention, swiglu;
        Tensor logits;       ///< f32 [rows, vocab]
        Tensor row_numbers;  ///< i32 [rows], for logits_of()
        Tensor cos, sin;     ///< [capacity, head_dim / 2]
        DecodeScratch scratch;
        Tensor attention_scratch;
        SamplingRows state;
        static Buffers lay_out(Arena& arena, const ModelConfig& config, const DecoderOptions& options);
    };
    /// Memory of one read().
    struct Workspace {
        Tensor tokens, positions, slots;
        AttentionMasks masks;
        Activations acts;
        static Workspace lay_out(Arena& arena, const ModelConfig& config, const DecoderOptions& options, int64_t tokens,
                                 int64_t columns);
    };
    struct Graph {
        bool warm = false;  ///< its kernels have run once
        std::unique_ptr<GpuGraph> graph;
    };

    static Tensor lay_out_widened(Arena& arena, const ModelConfig& config, DType matrices, bool quantised);
    void lay_out(Arena& arena, const ModelConfig& config);
    ModelParameters widening_parameters(const ModelParameters& weights) const;
    void widen_layer(const Context& ctx, int64_t layer) const;
    void enqueue_step(const Context& ctx, int64_t longest);
    void enqueue_layer(const Context& ctx, int64_t layer, const SamplingRows& state, int64_t longest);
    void keep_tokens(const Context& ctx);

    DecoderOptions options_;
    ModelParameters weights_;
    KvCache cache_;
    Buffers buffers_;
    /// CPU with bf16 matrices: those of one layer in f32, for read(). Of quantised ones: those of one layer, for all.
    Tensor widened_;
    Arena arena_;
    size_t workspace_ = 0;  ///< where the memory of read() begins
    Transformer model_;
    int64_t count_ = 0;    ///< rows
    int64_t longest_ = 0;  ///< tokens of the longest row, with the one that the next step reads
    std::map<std::pair<int64_t, int64_t>, Graph> graphs_;
    std::deque<std::vector<int32_t>> drawn_;         ///< CPU
    std::deque<std::unique_ptr<Readback>> pending_;  ///< GPU
    std::vector<std::unique_ptr<Readback>> idle_;
};

}  // namespace colonnade
