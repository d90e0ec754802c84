#include "train/model/block.h"

#include <cmath>

#include "layers/gated_linear.h"
#include "layers/gather.h"
#include "layers/kv_cache.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/swiglu.h"

namespace colonnade {
namespace {

/// Columns [begin, begin + heads * head_dim) of packed rows as [packs, length, heads, head_dim]; strided if the rows
/// are wider.
Tensor head_view(const Tensor& rows, int64_t begin, int64_t heads, int64_t head_dim, const ActivationLayout& layout) {
    const int64_t width = rows.numel() / layout.tokens();
    Tensor t = rows;
    if (t.data) t.data = static_cast<char*>(t.data) + begin * static_cast<int64_t>(bytes_of(t.dtype));
    t.rank = 4;
    t.shape = {layout.packs, layout.length, heads, head_dim};
    t.stride = {layout.length * width, width, head_dim, 1};
    return t;
}

/// The same elements as [tokens, heads, head_dim], for ops that do not know about packs.
Tensor flat_tokens(const Tensor& heads) {
    Tensor t = heads;
    t.rank = 3;
    t.shape = {heads.size(0) * heads.size(1), heads.size(2), heads.size(3), 0};
    t.stride = {heads.stride[1], heads.stride[2], heads.stride[3], 0};
    return t;
}

/// The first rows of a flat buffer as [tokens, width]; empty if the buffer is.
Tensor rows_in(const Tensor& buffer, int64_t tokens, int64_t width) {
    return buffer.empty() ? buffer : buffer.slice(0, 0, tokens * width).view({tokens, width});
}

}  // namespace

Block::Block(const Context& ctx, const Transformer& model, const TransformerInput& input, Activations& acts,
             int64_t layer)
    : ctx_(ctx),
      config_(model.config()),
      weights_(model.weights().blocks[layer]),
      input_(input),
      acts_(acts),
      a_(acts.blocks[layer]),
      layer_(layer),
      scale_(1 / std::sqrt(static_cast<double>(config_.head_dim))),
      some_rows_(acts.layout.rows && layer + 1 == config_.num_hidden_layers) {
    const int64_t rows = some_rows_ ? acts.layout.head_rows() : acts.layout.tokens();
    attention_ = some_rows_ ? acts.attention_rows : a_.attention;
    delta_ = acts.delta.slice(0, 0, rows);
    if (!acts.layout.training) return;
    dattention_ = some_rows_ ? acts.dattention_rows : acts.dattention;
    dstream_ = some_rows_ ? acts.dhidden : acts.dstream;
}

std::vector<Block::Tile> Block::tiles() const {
    const int64_t rows = delta_.size(0), most = acts_.layout.mlp_tile;
    std::vector<Tile> tiles;
    for (int64_t first = 0; first == 0 || first < rows; first += most) {  // one even of no rows
        const int64_t count = std::min(most, rows - first);
        const auto of = [&](const Tensor& t) {
            const int64_t begin = t.size(0) < rows ? 0 : first;
            return t.slice(0, begin, begin + count);
        };
        tiles.push_back({.first = first,
                         .in = of(some_rows_ ? a_.mid : a_.in),
                         .delta = of(delta_),
                         .mid = of(a_.mid),
                         .mid_rstd = of(a_.mid_rstd),
                         .mid_normed = of(a_.mid_normed),
                         .gate_up = of(a_.gate_up),
                         .swiglu = of(a_.swiglu)});
        if (!acts_.layout.training) continue;
        tiles.back().dstream = of(dstream_);
        tiles.back().dswiglu = acts_.dswiglu.slice(0, 0, count);
        tiles.back().dnormed = acts_.dnormed.slice(0, 0, count);
    }
    return tiles;
}

// --- Forward ---

void Block::forward(const CacheWrite* cache) const {
    attention_forward(cache);
    for (const Tile& t : tiles()) {
        swiglu_forward(t);
        linear(Projection::down, t.delta, t.swiglu, t.first);
    }
}

void Block::attention_forward(const CacheWrite* cache) const {
    linear(Projection::qkv, a_.qkv, a_.normed);
    Heads heads = heads_of(a_.qkv, a_.qkv);
    if (config_.qk_norm) {
        const Heads normed = heads_of(a_.qk, a_.qkv);
        norm(flat_tokens(normed.q), a_.q_rstd, flat_tokens(heads.q), weights_.q_norm);
        norm(flat_tokens(normed.k), a_.k_rstd, flat_tokens(heads.k), weights_.k_norm);
        heads = normed;
    }
    rope_apply(ctx_, {.x = queries_and_keys(config_.qk_norm ? a_.qk : a_.qkv), .cos = acts_.cos, .sin = acts_.sin});
    if (cache) {
        const Tensor& keys = cache->cache.k[layer_];
        const Tensor& values = cache->cache.v[layer_];
        append_to_cache(ctx_, {keys, flat_tokens(heads.k), cache->slots, cache->positions});
        append_to_cache(ctx_, {values, flat_tokens(heads.v), cache->slots, cache->positions});
        if (cache->keys > 0) {
            heads.k = cache->seen(keys);
            heads.v = cache->seen(values);
        }
    }
    const AttentionMasks::Entry& mask = input_.masks.of_layer(layer_);
    flashmask_forward(ctx_, {.out = query_heads(a_.attention),
                             .lse = a_.lse,
                             .q = heads.q,
                             .k = heads.k,
                             .v = heads.v,
                             .mask = mask.mask,
                             .plan = mask.plan,
                             .scale = scale_});
    if (some_rows_) {
        gather(attention_, a_.attention);
        gather(a_.mid, a_.in);
    }
    linear(Projection::o, delta_, attention_);
}

// The second half of the block, up to the output of SwiGLU.
void Block::swiglu_forward(const Tile& t) const {
    rmsnorm_forward(ctx_, {.out = t.mid_normed,
                           .rstd = t.mid_rstd,
                           .sum = t.mid,
                           .in = t.in,
                           .delta = t.delta,
                           .weight = weights_.post_attention_norm,
                           .eps = config_.rms_norm_eps});
    if (adapted(Projection::gate_up)) {  // the adapters add to gate and up before SwiGLU
        linear(Projection::gate_up, t.gate_up, t.mid_normed, t.first);
        colonnade::swiglu_forward(ctx_, {.out = t.swiglu, .gate_up = t.gate_up});
    } else {
        const LinearParameters& w = weights_.linear[Projection::gate_up];
        gate_up_swiglu_forward(ctx_, {.out = t.swiglu,
                                      .gate_up = t.gate_up,
                                      .in = t.mid_normed,
                                      .weight = weight(Projection::gate_up),
                                      .bias = w.bias,
                                      .fp8 = fp8(Projection::gate_up)});
    }
}

void Block::recompute_attention() const {
    const Recompute what = acts_.layout.recompute;
    if (what != Recompute::none) norm(a_.normed, a_.input_rstd, a_.in, weights_.input_norm);
    if (what == Recompute::block) attention_forward(nullptr);
}

void Block::recompute_swiglu(const Tile& t) const {
    const Recompute what = acts_.layout.recompute;
    if (what == Recompute::block) swiglu_forward(t);
    if (what != Recompute::selective) return;
    norm(t.mid_normed, t.mid_rstd, t.mid, weights_.post_attention_norm);
    colonnade::swiglu_forward(ctx_, {.out = t.swiglu, .gate_up = t.gate_up});
}

// --- Backward ---

void Block::backward(const ModelGradients& gradients) const {
    const BlockParameters& g = gradients.views.blocks[layer_];
    recompute_attention();
    for (const Tile& t : tiles()) {
        recompute_swiglu(t);
        swiglu_backward(t, g, t.first == 0 ? gradients.matrices : Grad::accumulate);
    }
    attention_backward(g, gradients);
}

void Block::swiglu_backward(const Tile& t, const BlockParameters& g, Grad matrices) const {
    // Adapters add to d_swiglu, so it has to be written. Without them one fused op also goes through SwiGLU.
    const bool has_adapters = adapted(Projection::down);
    linear_backward(Projection::down, g, matrices,
                    {.din = has_adapters ? t.dswiglu : Tensor(), .dout = t.dstream, .in = t.swiglu, .first = t.first});
    if (has_adapters)
        colonnade::swiglu_backward(ctx_, {.dgate_up = t.gate_up, .dout = t.dswiglu, .gate_up = t.gate_up});
    else
        down_swiglu_backward(ctx_, {.dgate_up = t.gate_up,
                                    .dswiglu = t.dswiglu,
                                    .dout = t.dstream,
                                    .weight = weight(Projection::down),
                                    .gate_up = t.gate_up,
                                    .fp8 = fp8(Projection::down)});
    linear_backward(Projection::gate_up, g, matrices,
                    {.din = t.dnormed, .dout = t.gate_up, .in = t.mid_normed, .first = t.first});
    norm_backward(t.dstream, g.post_attention_norm, t.mid, t.mid_rstd, weights_.post_attention_norm);
}

void Block::attention_backward(const BlockParameters& g, const ModelGradients& gradients) const {
    const Grad matrices = gradients.matrices;
    linear_backward(Projection::o, g, matrices, {.din = dattention_, .dout = dstream_, .in = attention_});
    if (some_rows_) {
        scatter(acts_.dattention, dattention_);
        scatter(acts_.dstream, dstream_);
    }
    heads_backward(g);
    const bool lowest = layer_ == gradients.lowest && g.input_norm.empty();  // nothing is trained below
    const Tensor dnormed = acts_.dnormed.slice(0, 0, acts_.layout.tokens());
    linear_backward(Projection::qkv, g, matrices,
                    {.din = lowest ? Tensor() : dnormed, .dout = acts_.dqkv, .in = a_.normed});
    if (!lowest) norm_backward(acts_.dstream, g.input_norm, a_.in, a_.input_rstd, weights_.input_norm);
}

// Computes d_qkv from d_attention.
void Block::heads_backward(const BlockParameters& g) const {
    const Heads saved = heads_of(config_.qk_norm ? a_.qk : a_.qkv, a_.qkv);
    const Heads d = heads_of(acts_.dqkv, acts_.dqkv);
    const AttentionMasks::Entry& mask = input_.masks.of_layer(layer_);
    flashmask_backward(ctx_, {.dq = d.q,
                              .dk = d.k,
                              .dv = d.v,
                              .dout = query_heads(acts_.dattention),
                              .out = query_heads(a_.attention),
                              .lse = a_.lse,
                              .q = saved.q,
                              .k = saved.k,
                              .v = saved.v,
                              .mask = mask.mask,
                              .plan = mask.plan,
                              .scale = scale_,
                              .scratch = acts_.scratch});
    rope_apply(ctx_, {.x = queries_and_keys(acts_.dqkv), .cos = acts_.cos, .sin = acts_.sin, .backward = true});
    if (!config_.qk_norm) return;
    const Heads raw = heads_of(a_.qkv, a_.qkv);
    const auto backward = [&](const Tensor& dheads, const Tensor& dweight, const Tensor& in, const Tensor& rstd,
                              const Tensor& weight) {
        rmsnorm_backward(ctx_, {.din = flat_tokens(dheads),
                                .dweight = dweight,
                                .dout = flat_tokens(dheads),
                                .in = flat_tokens(in),
                                .rstd = rstd,
                                .weight = weight,
                                .scratch = acts_.scratch});
    };
    backward(d.q, g.q_norm, raw.q, a_.q_rstd, weights_.q_norm);
    backward(d.k, g.k_norm, raw.k, a_.k_rstd, weights_.k_norm);
}

// --- Linear layers and their adapters (train/model/lora.h) ---

Tensor Block::weight(Projection p) const {
    const LinearParameters& w = weights_.linear[p];
    if (w.quantised.empty()) return w.weight;
    if (takes_codes(p))
        return {nullptr, acts_.layout.dtype, {rows_of(w.quantised), w.quantised.front().columns}, ctx_.device};
    const Tensor wide = rows_in(acts_.weight, rows_of(w.quantised), w.quantised.front().columns);
    dequantise_rows(ctx_, wide, w.quantised);
    return wide;
}

bool Block::takes_codes(Projection p) const {
    return acts_.layout.fp8 && fp8_takes(weights_.linear[p].quantised);
}

Fp8Linear Block::fp8(Projection p) const {
    if (!acts_.layout.fp8) return {};
    return {.room = &acts_.fp8,
            .matrices = takes_codes(p) ? std::span<const QuantisedMatrix>(weights_.linear[p].quantised)
                                       : std::span<const QuantisedMatrix>()};
}

bool Block::adapted(Projection p) const {
    return input_.adapters && !weights_.linear[p].adapters.empty();
}

DropoutMask Block::dropout_of(Projection p, int64_t first, int64_t rows) const {
    DropoutMask mask = input_.dropout;
    mask.stream |= static_cast<uint64_t>(layer_) << 2 | static_cast<uint64_t>(p);
    mask.first = first;
    if (some_rows_ && p != Projection::qkv) mask.rows = input_.rows.slice(0, first, first + rows);
    return mask;
}

void Block::linear(Projection p, const Tensor& out, const Tensor& in, int64_t first) const {
    const LinearParameters& w = weights_.linear[p];
    linear_forward(ctx_, {.out = out, .in = in, .weight = weight(p), .bias = w.bias, .fp8 = fp8(p)});
    if (!adapted(p)) return;
    low_rank_forward(ctx_, {.out = out,
                            .h = a_.lora_h[p].slice(0, first, first + in.size(0)),
                            .in = in,
                            .weights = w.adapters,
                            .mask = dropout_of(p, first, in.size(0)),
                            .dropped = rows_in(acts_.dropped, in.size(0), in.size(1))});
}

void Block::linear_backward(Projection p, const BlockParameters& g, Grad matrices, const LinearGradient& x) const {
    const LinearParameters& w = weights_.linear[p];
    if (w.quantised.empty() || !x.din.empty())
        colonnade::linear_backward(ctx_, {.din = x.din,
                                          .dweight = g.linear[p].weight,
                                          .dweight_mode = matrices,
                                          .dbias = g.linear[p].bias,
                                          .dout = x.dout,
                                          .in = x.in,
                                          .weight = weight(p),
                                          .fp8 = fp8(p),
                                          .scratch = acts_.scratch});
    if (!adapted(p)) return;
    low_rank_backward(ctx_, {.din = x.din,
                             .gradients = g.linear[p].adapters,
                             .dh = rows_in(acts_.dlora_h, x.in.size(0), w.adapters.a.size(0)),
                             .dout = x.dout,
                             .h = a_.lora_h[p].slice(0, x.first, x.first + x.in.size(0)),
                             .in = x.in,
                             .weights = w.adapters,
                             .mask = dropout_of(p, x.first, x.in.size(0)),
                             .dropped = rows_in(acts_.dropped, x.in.size(0), x.in.size(1))});
}

// --- Rows, norms and heads ---

void Block::gather(const Tensor& out, const Tensor& in) const {
    gather_rows(ctx_, {.out = out, .in = in, .rows = input_.rows});
}

void Block::scatter(const Tensor& din, const Tensor& dout) const {
    scatter_rows(ctx_, {.din = din, .dout = dout, .rows = input_.rows});
}

void Block::norm(const Tensor& out, const Tensor& rstd, const Tensor& in, const Tensor& weight) const {
    rmsnorm_forward(ctx_, {.out = out, .rstd = rstd, .in = in, .weight = weight, .eps = config_.rms_norm_eps});
}

void Block::norm_backward(const Tensor& dstream, const Tensor& dweight, const Tensor& in, const Tensor& rstd,
                          const Tensor& weight) const {
    rmsnorm_backward(ctx_, {.din = dstream,
                            .din_mode = Grad::accumulate,
                            .dweight = dweight,
                            .dout = acts_.dnormed.slice(0, 0, in.size(0)),
                            .in = in,
                            .rstd = rstd,
                            .weight = weight,
                            .scratch = acts_.scratch});
}

Block::Heads Block::heads_of(const Tensor& packed, const Tensor& values) const {
    const ModelConfig& c = config_;
    return {head_view(packed, 0, c.num_attention_heads, c.head_dim, acts_.layout),
            head_view(packed, c.query_width(), c.num_key_value_heads, c.head_dim, acts_.layout),
            head_view(values, c.query_width() + c.kv_width(), c.num_key_value_heads, c.head_dim, acts_.layout)};
}

Tensor Block::query_heads(const Tensor& rows) const {
    return head_view(rows, 0, config_.num_attention_heads, config_.head_dim, acts_.layout);
}

Tensor Block::queries_and_keys(const Tensor& packed) const {
    const int64_t heads = config_.num_attention_heads + config_.num_key_value_heads;
    return flat_tokens(head_view(packed, 0, heads, config_.head_dim, acts_.layout));
}

}  // namespace colonnade
