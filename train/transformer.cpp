#include "train/transformer.h"

#include <cmath>
#include <cstring>

#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/swiglu.h"

namespace colonnade {

AttentionMasks::AttentionMasks(const ModelConfig& config, const ColumnMask& mask) {
    std::vector<int64_t> windows;
    for (const int64_t window : config.windows) {
        size_t i = 0;
        while (i < windows.size() && windows[i] != window) ++i;
        if (i == windows.size()) {
            windows.push_back(window);
            ColumnMask seen = window ? mask.with_sliding_window(window) : mask;
            TilePlan plan = make_tile_plan(seen);
            // Rows of short documents fill few pairs of a large tile. Small ones then cost less than they lose in the
            // matmuls: attention of the quickstart's step falls from 10 to 6 % of its time.
            const int64_t tile_pairs = plan.surviving_tiles() * plan.tile_rows * plan.tile_columns;
            if (5 * plan.visible_pairs < 2 * tile_pairs) plan = make_tile_plan(seen, 32, 32);
            entries_.push_back({std::move(seen), std::move(plan)});
        }
        index_.push_back(i);
    }
}

KvCache KvCache::lay_out(Arena& arena, const ModelConfig& config, int64_t capacity, DType dtype) {
    KvCache cache;
    for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
        cache.k.push_back(arena.tensor("kv cache", dtype, {1, capacity, config.num_key_value_heads, config.head_dim}));
        cache.v.push_back(arena.tensor("kv cache", dtype, {1, capacity, config.num_key_value_heads, config.head_dim}));
    }
    return cache;
}

Activations Activations::lay_out(Arena& arena, const ModelConfig& c, int64_t packs, int64_t length, DType dtype,
                                 bool training) {
    const int64_t tokens = packs * length, h = c.hidden_size, f = c.intermediate_size;
    const auto saved = [&](std::initializer_list<int64_t> shape) { return arena.tensor("activations", dtype, shape); };
    const auto scratch = [&](std::initializer_list<int64_t> shape) {
        return arena.tensor("activation gradients", dtype, shape);
    };
    Activations a;
    a.packs = packs;
    a.length = length;
    a.training = training;
    a.cos = saved({tokens, c.head_dim / 2});
    a.sin = saved({tokens, c.head_dim / 2});
    for (int64_t l = 0; l < (training ? c.num_hidden_layers : 1); ++l) {
        BlockActivations b;
        b.in = saved({tokens, h});
        b.input_rstd = saved({tokens});
        b.normed = saved({tokens, h});
        b.qkv = saved({tokens, c.qkv_width()});
        if (c.qk_norm) {
            b.qk = saved({tokens, c.num_attention_heads + c.num_key_value_heads, c.head_dim});
            b.q_rstd = saved({tokens * c.num_attention_heads});
            b.k_rstd = saved({tokens * c.num_key_value_heads});
        }
        b.attention = saved({tokens, c.query_width()});
        b.lse = saved({packs, c.num_attention_heads, length});
        b.mid = saved({tokens, h});
        b.mid_rstd = saved({tokens});
        b.mid_normed = saved({tokens, h});
        b.gate_up = saved({tokens, 2 * f});
        b.swiglu = saved({tokens, f});
        a.blocks.push_back(b);
    }
    if (!training) a.blocks.resize(static_cast<size_t>(c.num_hidden_layers), a.blocks[0]);
    a.out = saved({tokens, h});
    a.final_rstd = saved({tokens});
    a.hidden = saved({tokens, h});
    a.branch = saved({tokens, h});
    if (training) {
        a.dhidden = scratch({tokens, h});
        a.dstream = scratch({tokens, h});
        a.dqkv = scratch({tokens, c.qkv_width()});
        a.dattention = scratch({tokens, c.query_width()});
        a.dswiglu = scratch({tokens, f});
        a.dnormed = scratch({tokens, h});
    }
    return a;
}

Transformer::Transformer(const ModelConfig& config, const ModelParameters& weights)
    : config_(config),
      weights_(weights),
      frequencies_(rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)),
      scale_(1 / std::sqrt(static_cast<double>(config.head_dim))) {}

namespace {

/// Columns [begin, begin + heads * head_dim) of packed rows as [packs, length, heads, head_dim]; strided where rows are
/// wider.
Tensor head_view(const Tensor& rows, int64_t begin, int64_t heads, int64_t head_dim, int64_t packs, int64_t length) {
    const int64_t width = rows.numel() / (packs * length);
    Tensor t = rows;
    if (t.data) t.data = static_cast<char*>(t.data) + static_cast<size_t>(begin) * bytes_of(t.dtype);
    t.rank = 4;
    t.shape = {packs, length, heads, head_dim};
    t.stride = {length * width, width, head_dim, 1};
    return t;
}

/// The same elements as [tokens, heads, head_dim], for ops that know nothing of packs.
Tensor flat_tokens(const Tensor& heads) {
    Tensor t = heads;
    t.rank = 3;
    t.shape = {heads.size(0) * heads.size(1), heads.size(2), heads.size(3), 0};
    t.stride = {heads.stride[1], heads.stride[2], heads.stride[3], 0};
    return t;
}

}  // namespace

// `packed` holds queries and keys side by side, `values` is the qkv buffer (the same one, unless there is a q/k norm).
Transformer::Heads Transformer::heads_of(const Tensor& packed, const Tensor& values, int64_t packs,
                                         int64_t length) const {
    const ModelConfig& c = config_;
    return {head_view(packed, 0, c.num_attention_heads, c.head_dim, packs, length),
            head_view(packed, c.query_width(), c.num_key_value_heads, c.head_dim, packs, length),
            head_view(values, c.query_width() + c.kv_width(), c.num_key_value_heads, c.head_dim, packs, length)};
}

static void append(Tensor cache, int64_t at, const Tensor& heads) {
    const size_t row_bytes = static_cast<size_t>(heads.size(2) * heads.size(3)) * bytes_of(heads.dtype);
    const size_t step = static_cast<size_t>(heads.stride[1]) * bytes_of(heads.dtype);
    for (int64_t i = 0; i < heads.size(1); ++i)
        std::memcpy(static_cast<char*>(cache.data) + static_cast<size_t>(at + i) * row_bytes,
                    static_cast<const char*>(heads.data) + static_cast<size_t>(i) * step, row_bytes);
}

void Transformer::attention_forward(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                                    KvCache* cache) const {
    const auto l = static_cast<size_t>(layer);
    const BlockParameters& w = weights_.blocks[l];
    BlockActivations& a = acts.blocks[l];
    const double eps = config_.rms_norm_eps;
    linear_forward(ctx, {.out = a.qkv, .in = a.normed, .weight = w.qkv, .bias = w.qkv_bias});
    Heads heads = heads_of(a.qkv, a.qkv, acts.packs, acts.length);
    if (config_.qk_norm) {
        const Heads normed = heads_of(a.qk, a.qkv, acts.packs, acts.length);
        rmsnorm_forward(ctx, {.out = flat_tokens(normed.q),
                              .rstd = a.q_rstd,
                              .sum = {},
                              .in = flat_tokens(heads.q),
                              .delta = {},
                              .weight = w.q_norm,
                              .eps = eps});
        rmsnorm_forward(ctx, {.out = flat_tokens(normed.k),
                              .rstd = a.k_rstd,
                              .sum = {},
                              .in = flat_tokens(heads.k),
                              .delta = {},
                              .weight = w.k_norm,
                              .eps = eps});
        heads = normed;
    }
    rope_apply(ctx, {.x = flat_tokens(heads.q), .cos = acts.cos, .sin = acts.sin});
    rope_apply(ctx, {.x = flat_tokens(heads.k), .cos = acts.cos, .sin = acts.sin});
    if (cache) {
        append(cache->k[l], cache->length, heads.k);
        append(cache->v[l], cache->length, heads.v);
        heads.k = cache->k[l].slice(1, 0, cache->length + acts.length);
        heads.v = cache->v[l].slice(1, 0, cache->length + acts.length);
    }
    const AttentionMasks::Entry& mask = input.masks.of_layer(layer);
    const Tensor out =
        head_view(a.attention, 0, config_.num_attention_heads, config_.head_dim, acts.packs, acts.length);
    flashmask_forward(ctx, {.out = out,
                            .lse = a.lse,
                            .q = heads.q,
                            .k = heads.k,
                            .v = heads.v,
                            .mask = mask.mask,
                            .plan = mask.plan,
                            .scale = scale_});
    linear_forward(ctx, {.out = acts.branch, .in = a.attention, .weight = w.o, .bias = w.o_bias});
}

void Transformer::forward(const Context& ctx, const TransformerInput& input, Activations& acts, KvCache* cache) const {
    require(input.packs == acts.packs && input.length == acts.length,
            "activations are laid out for {} x {} tokens, not {} x {}", acts.packs, acts.length, input.packs,
            input.length);
    const double eps = config_.rms_norm_eps;
    const size_t layers = weights_.blocks.size();
    rope_angles(ctx, {.cos = acts.cos, .sin = acts.sin, .positions = input.positions, .frequencies = frequencies_});
    embedding_forward(ctx, {.out = acts.blocks[0].in, .tokens = input.tokens, .weight = weights_.embedding});
    rmsnorm_forward(ctx, {.out = acts.blocks[0].normed,
                          .rstd = acts.blocks[0].input_rstd,
                          .sum = {},
                          .in = acts.blocks[0].in,
                          .delta = {},
                          .weight = weights_.blocks[0].input_norm,
                          .eps = eps});
    for (size_t l = 0; l < layers; ++l) {
        const BlockParameters& w = weights_.blocks[l];
        BlockActivations& a = acts.blocks[l];
        attention_forward(ctx, input, acts, static_cast<int64_t>(l), cache);
        rmsnorm_forward(ctx, {.out = a.mid_normed,
                              .rstd = a.mid_rstd,
                              .sum = a.mid,
                              .in = a.in,
                              .delta = acts.branch,
                              .weight = w.post_attention_norm,
                              .eps = eps});
        linear_forward(ctx, {.out = a.gate_up, .in = a.mid_normed, .weight = w.gate_up, .bias = w.gate_up_bias});
        swiglu_forward(ctx, {.out = a.swiglu, .gate_up = a.gate_up});
        linear_forward(ctx, {.out = acts.branch, .in = a.swiglu, .weight = w.down, .bias = w.down_bias});
        // The residual add is fused with the norm that follows it: the next block's, or the final one.
        const bool last = l + 1 == layers;
        rmsnorm_forward(ctx, {.out = last ? acts.hidden : acts.blocks[l + 1].normed,
                              .rstd = last ? acts.final_rstd : acts.blocks[l + 1].input_rstd,
                              .sum = last ? acts.out : acts.blocks[l + 1].in,
                              .in = a.mid,
                              .delta = acts.branch,
                              .weight = last ? weights_.final_norm : weights_.blocks[l + 1].input_norm,
                              .eps = eps});
    }
}

void Transformer::attention_backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                                     int64_t layer, const BlockParameters& gradients) const {
    const auto l = static_cast<size_t>(layer);
    const BlockParameters& w = weights_.blocks[l];
    BlockActivations& a = acts.blocks[l];
    linear_backward(ctx, {.din = acts.dattention,
                          .dweight = gradients.o,
                          .dbias = gradients.o_bias,
                          .dout = acts.dstream,
                          .in = a.attention,
                          .weight = w.o});

    const Heads saved = heads_of(config_.qk_norm ? a.qk : a.qkv, a.qkv, acts.packs, acts.length);
    const Heads d = heads_of(acts.dqkv, acts.dqkv, acts.packs, acts.length);
    const auto query_heads = [&](const Tensor& rows) {
        return head_view(rows, 0, config_.num_attention_heads, config_.head_dim, acts.packs, acts.length);
    };
    const AttentionMasks::Entry& mask = input.masks.of_layer(layer);
    flashmask_backward(ctx, {.dq = d.q,
                             .dk = d.k,
                             .dv = d.v,
                             .dout = query_heads(acts.dattention),
                             .out = query_heads(a.attention),
                             .lse = a.lse,
                             .q = saved.q,
                             .k = saved.k,
                             .v = saved.v,
                             .mask = mask.mask,
                             .plan = mask.plan,
                             .scale = scale_});
    rope_apply(ctx, {.x = flat_tokens(d.q), .cos = acts.cos, .sin = acts.sin, .backward = true});
    rope_apply(ctx, {.x = flat_tokens(d.k), .cos = acts.cos, .sin = acts.sin, .backward = true});
    if (config_.qk_norm) {
        const Heads raw = heads_of(a.qkv, a.qkv, acts.packs, acts.length);
        rmsnorm_backward(ctx, {.din = flat_tokens(d.q),
                               .dweight = gradients.q_norm,
                               .dout = flat_tokens(d.q),
                               .in = flat_tokens(raw.q),
                               .rstd = a.q_rstd,
                               .weight = w.q_norm});
        rmsnorm_backward(ctx, {.din = flat_tokens(d.k),
                               .dweight = gradients.k_norm,
                               .dout = flat_tokens(d.k),
                               .in = flat_tokens(raw.k),
                               .rstd = a.k_rstd,
                               .weight = w.k_norm});
    }
    linear_backward(ctx, {.din = acts.dnormed,
                          .dweight = gradients.qkv,
                          .dbias = gradients.qkv_bias,
                          .dout = acts.dqkv,
                          .in = a.normed,
                          .weight = w.qkv});
    rmsnorm_backward(ctx, {.din = acts.dstream,
                           .din_mode = Grad::accumulate,
                           .dweight = gradients.input_norm,
                           .dout = acts.dnormed,
                           .in = a.in,
                           .rstd = a.input_rstd,
                           .weight = w.input_norm});
}

void Transformer::backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                           const ModelParameters& gradients) const {
    require(acts.training, "backward needs activations laid out for training");
    rmsnorm_backward(ctx, {.din = acts.dstream,
                           .dweight = gradients.final_norm,
                           .dout = acts.dhidden,
                           .in = acts.out,
                           .rstd = acts.final_rstd,
                           .weight = weights_.final_norm});
    for (size_t l = weights_.blocks.size(); l-- > 0;) {
        const BlockParameters &w = weights_.blocks[l], &g = gradients.blocks[l];
        BlockActivations& a = acts.blocks[l];
        linear_backward(ctx, {.din = acts.dswiglu,
                              .dweight = g.down,
                              .dbias = g.down_bias,
                              .dout = acts.dstream,
                              .in = a.swiglu,
                              .weight = w.down});
        swiglu_backward(ctx, {.dgate_up = a.gate_up, .dout = acts.dswiglu, .gate_up = a.gate_up});
        linear_backward(ctx, {.din = acts.dnormed,
                              .dweight = g.gate_up,
                              .dbias = g.gate_up_bias,
                              .dout = a.gate_up,
                              .in = a.mid_normed,
                              .weight = w.gate_up});
        rmsnorm_backward(ctx, {.din = acts.dstream,
                               .din_mode = Grad::accumulate,
                               .dweight = g.post_attention_norm,
                               .dout = acts.dnormed,
                               .in = a.mid,
                               .rstd = a.mid_rstd,
                               .weight = w.post_attention_norm});
        attention_backward(ctx, input, acts, static_cast<int64_t>(l), g);
    }
    embedding_backward(ctx, {.dweight = gradients.embedding, .dout = acts.dstream, .tokens = input.tokens});
}

}  // namespace colonnade
