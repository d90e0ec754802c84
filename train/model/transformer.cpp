#include "train/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "layers/gated_linear.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/swiglu.h"

namespace colonnade {

namespace {

/// The distinct sliding windows of a model's layers, in order of first use.
std::vector<int64_t> distinct_windows(const ModelConfig& config) {
    std::vector<int64_t> windows;
    for (const int64_t window : config.windows)
        if (std::ranges::find(windows, window) == windows.end()) windows.push_back(window);
    return windows;
}

}  // namespace

AttentionMasks::Memory AttentionMasks::Memory::lay_out(Arena& arena, const ModelConfig& config, int64_t packs,
                                                       int64_t length) {
    Memory memory;
    for (size_t i = 0; i < distinct_windows(config).size(); ++i)
        memory.plans.push_back(GpuTilePlan::lay_out(arena, packs, length, length));
    return memory;
}

AttentionMasks::AttentionMasks(const Context& ctx, const ModelConfig& config, const ColumnMask& mask,
                               const Memory& memory, std::span<const int32_t> positions) {
    const auto windowed = [&](int64_t window) {
        return positions.empty() ? mask.with_sliding_window(window) : mask.with_sliding_window(window, positions);
    };
    const std::vector<int64_t> windows = distinct_windows(config);
    for (size_t i = 0; i < windows.size(); ++i) {
        ColumnMask seen = windows[i] ? windowed(windows[i]) : mask;
        TilePlan plan = make_tile_plan(ctx, memory.plans.empty() ? GpuTilePlan{} : memory.plans[i], seen);
        entries_.push_back({std::move(seen), std::move(plan)});
    }
    for (const int64_t window : config.windows)
        index_.push_back(static_cast<size_t>(std::ranges::find(windows, window) - windows.begin()));
}

KvCache KvCache::lay_out(Arena& arena, const ModelConfig& config, int64_t capacity, DType dtype) {
    KvCache cache;
    for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
        cache.k.push_back(arena.tensor("kv cache", dtype, {1, capacity, config.num_key_value_heads, config.head_dim}));
        cache.v.push_back(arena.tensor("kv cache", dtype, {1, capacity, config.num_key_value_heads, config.head_dim}));
    }
    return cache;
}

static int64_t input_width(const ModelConfig& c, Product product) {
    return product == Product::o ? c.query_width() : product == Product::down ? c.intermediate_size : c.hidden_size;
}

Activations Activations::lay_out(Arena& arena, const ModelConfig& c, int64_t packs, int64_t length, DType dtype,
                                 bool training, Recompute recompute, const LoraSettings* lora) {
    const int64_t tokens = packs * length, h = c.hidden_size, f = c.intermediate_size;
    const DType sums = sum_dtype(dtype);
    const auto saved = [&](std::initializer_list<int64_t> shape) { return arena.tensor("activations", dtype, shape); };
    const auto statistic = [&](std::initializer_list<int64_t> shape) {
        return arena.tensor("activations", sums, shape);
    };
    const auto scratch = [&](std::initializer_list<int64_t> shape) {
        return arena.tensor("activation gradients", dtype, shape);
    };
    Activations a;
    a.packs = packs;
    a.length = length;
    a.training = training;
    a.recompute = recompute;
    a.cos = statistic({tokens, c.head_dim / 2});
    a.sin = statistic({tokens, c.head_dim / 2});
    const bool share_all = !training || recompute == Recompute::block;
    const bool share_some = share_all || recompute == Recompute::selective;
    for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
        // A layer that shares begins as a copy of the first.
        const bool first = l == 0;
        BlockActivations b = first ? BlockActivations() : a.blocks[0];
        if (first || training) b.in = saved({tokens, h});
        if (first || !share_some) {
            b.normed = saved({tokens, h});
            b.mid_normed = saved({tokens, h});
            b.swiglu = saved({tokens, f});
        }
        if (first || !share_all) {
            b.input_rstd = statistic({tokens});
            b.qkv = saved({tokens, c.qkv_width()});
            if (c.qk_norm) {
                b.qk = saved({tokens, c.num_attention_heads + c.num_key_value_heads, c.head_dim});
                b.q_rstd = statistic({tokens * c.num_attention_heads});
                b.k_rstd = statistic({tokens * c.num_key_value_heads});
            }
            b.attention = saved({tokens, c.query_width()});
            b.lse = statistic({packs, c.num_attention_heads, length});
            b.mid = saved({tokens, h});
            b.mid_rstd = statistic({tokens});
            b.gate_up = saved({tokens, 2 * f});
        }
        for (size_t p = 0; lora && p < products; ++p) {
            // The last product of a block is not computed again with the block.
            const bool shared = share_all && !(training && p == static_cast<size_t>(Product::down));
            const int64_t width = lora->width(static_cast<Product>(p));
            if (width > 0 && (first || !shared)) b.h[p] = saved({tokens, width});
        }
        a.blocks.push_back(b);
    }
    a.out = saved({tokens, h});
    a.final_rstd = statistic({tokens});
    a.hidden = saved({tokens, h});
    a.branch = saved({tokens, h});
    if (training && lora) {
        int64_t widest_in = 0, widest_h = 0;
        for (size_t p = 0; p < products; ++p) {
            const int64_t width = lora->width(static_cast<Product>(p));
            if (width > 0) widest_in = std::max(widest_in, input_width(c, static_cast<Product>(p)));
            widest_h = std::max(widest_h, width);
        }
        if (lora->dropout > 0) a.dropped = scratch({tokens * widest_in});
        a.dh = scratch({tokens * widest_h});
    }
    if (training) {
        a.dhidden = scratch({tokens, h});
        a.dstream = scratch({tokens, h});
        a.dqkv = scratch({tokens, c.qkv_width()});
        a.dattention = scratch({tokens, c.query_width()});
        a.dswiglu = scratch({tokens, f});
        a.dnormed = scratch({tokens, h});
        if (arena.device() == Device::cuda) {
            const Tensor queries(nullptr, dtype, {packs, length, c.num_attention_heads, c.head_dim}, Device::cuda);
            const int64_t bytes =
                std::max({flashmask_scratch_bytes(queries), rmsnorm_scratch_bytes(h), rmsnorm_scratch_bytes(c.head_dim),
                          linear_scratch_bytes(std::max({c.qkv_width(), 2 * f, h}))});
            a.scratch = arena.tensor("workspace", DType::u8, {bytes});
        }
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

// Side by side in every row, they are rotated as one tensor of heads.
Tensor Transformer::queries_and_keys(const Tensor& packed) const {
    const int64_t tokens = packed.size(0);
    return flat_tokens(
        head_view(packed, 0, config_.num_attention_heads + config_.num_key_value_heads, config_.head_dim, 1, tokens));
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
    adapt(ctx, input, acts, layer, Product::qkv, a.qkv, a.normed);
    Heads heads = heads_of(a.qkv, a.qkv, acts.packs, acts.length);
    if (config_.qk_norm) {
        const Heads normed = heads_of(a.qk, a.qkv, acts.packs, acts.length);
        rmsnorm_forward(ctx, {.out = flat_tokens(normed.q),
                              .rstd = a.q_rstd,
                              .in = flat_tokens(heads.q),
                              .weight = w.q_norm,
                              .eps = eps});
        rmsnorm_forward(ctx, {.out = flat_tokens(normed.k),
                              .rstd = a.k_rstd,
                              .in = flat_tokens(heads.k),
                              .weight = w.k_norm,
                              .eps = eps});
        heads = normed;
    }
    rope_apply(ctx, {.x = queries_and_keys(config_.qk_norm ? a.qk : a.qkv), .cos = acts.cos, .sin = acts.sin});
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
    adapt(ctx, input, acts, layer, Product::o, acts.branch, a.attention);
}

void Transformer::block_forward(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                                KvCache* cache) const {
    const BlockParameters& w = weights_.blocks[static_cast<size_t>(layer)];
    BlockActivations& a = acts.blocks[static_cast<size_t>(layer)];
    attention_forward(ctx, input, acts, layer, cache);
    rmsnorm_forward(ctx, {.out = a.mid_normed,
                          .rstd = a.mid_rstd,
                          .sum = a.mid,
                          .in = a.in,
                          .delta = acts.branch,
                          .weight = w.post_attention_norm,
                          .eps = config_.rms_norm_eps});
    if (adapted(input, layer, Product::gate_up)) {  // between the product and SwiGLU
        linear_forward(ctx, {.out = a.gate_up, .in = a.mid_normed, .weight = w.gate_up, .bias = w.gate_up_bias});
        adapt(ctx, input, acts, layer, Product::gate_up, a.gate_up, a.mid_normed);
        swiglu_forward(ctx, {.out = a.swiglu, .gate_up = a.gate_up});
    } else {
        gate_up_swiglu_forward(
            ctx,
            {.out = a.swiglu, .gate_up = a.gate_up, .in = a.mid_normed, .weight = w.gate_up, .bias = w.gate_up_bias});
    }
}

void Transformer::forward(const Context& ctx, const TransformerInput& input, Activations& acts, KvCache* cache) const {
    require(input.packs == acts.packs && input.length == acts.length,
            "activations are laid out for {} x {} tokens, not {} x {}", acts.packs, acts.length, input.packs,
            input.length);
    const double eps = config_.rms_norm_eps;
    const size_t layers = weights_.blocks.size();
    rope_angles(ctx, {.cos = acts.cos, .sin = acts.sin, .positions = input.positions, .frequencies = frequencies_});
    input.before_forward(embedding_layer);
    input.before_forward(0);
    embedding_forward(ctx, {.out = acts.blocks[0].in, .tokens = input.tokens, .weight = weights_.embedding});
    rmsnorm_forward(ctx, {.out = acts.blocks[0].normed,
                          .rstd = acts.blocks[0].input_rstd,
                          .in = acts.blocks[0].in,
                          .weight = weights_.blocks[0].input_norm,
                          .eps = eps});
    for (size_t l = 0; l < layers; ++l) {
        const BlockParameters& w = weights_.blocks[l];
        BlockActivations& a = acts.blocks[l];
        block_forward(ctx, input, acts, static_cast<int64_t>(l), cache);
        linear_forward(ctx, {.out = acts.branch, .in = a.swiglu, .weight = w.down, .bias = w.down_bias});
        adapt(ctx, input, acts, static_cast<int64_t>(l), Product::down, acts.branch, a.swiglu);
        // The residual add is fused with the norm that follows it: the next block's, or the final one.
        const bool last = l + 1 == layers;
        input.before_forward(static_cast<int64_t>(l) + 1);
        rmsnorm_forward(ctx, {.out = last ? acts.hidden : acts.blocks[l + 1].normed,
                              .rstd = last ? acts.final_rstd : acts.blocks[l + 1].input_rstd,
                              .sum = last ? acts.out : acts.blocks[l + 1].in,
                              .in = a.mid,
                              .delta = acts.branch,
                              .weight = last ? weights_.final_norm : weights_.blocks[l + 1].input_norm,
                              .eps = eps});
    }
}

void Transformer::recompute_block(const Context& ctx, const TransformerInput& input, Activations& acts,
                                  int64_t layer) const {
    if (acts.recompute == Recompute::none) return;
    const BlockParameters& w = weights_.blocks[static_cast<size_t>(layer)];
    BlockActivations& a = acts.blocks[static_cast<size_t>(layer)];
    const auto norm = [&](const Tensor& out, const Tensor& rstd, const Tensor& in, const Tensor& weight) {
        rmsnorm_forward(ctx, {.out = out, .rstd = rstd, .in = in, .weight = weight, .eps = config_.rms_norm_eps});
    };
    norm(a.normed, a.input_rstd, a.in, w.input_norm);
    if (acts.recompute == Recompute::block) return block_forward(ctx, input, acts, layer, nullptr);
    norm(a.mid_normed, a.mid_rstd, a.mid, w.post_attention_norm);
    swiglu_forward(ctx, {.out = a.swiglu, .gate_up = a.gate_up});
}

void Transformer::attention_backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                                     int64_t layer, const BlockParameters& gradients, Grad matrices) const {
    const auto l = static_cast<size_t>(layer);
    const BlockParameters& w = weights_.blocks[l];
    BlockActivations& a = acts.blocks[l];
    linear_backward(ctx, {.din = acts.dattention,
                          .dweight = gradients.o,
                          .dweight_mode = matrices,
                          .dbias = gradients.o_bias,
                          .dout = acts.dstream,
                          .in = a.attention,
                          .weight = w.o,
                          .scratch = acts.scratch});
    adapt_backward(ctx, input, acts, layer, Product::o, gradients,
                   {.din = acts.dattention, .dout = acts.dstream, .in = a.attention});

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
                             .scale = scale_,
                             .scratch = acts.scratch});
    rope_apply(ctx, {.x = queries_and_keys(acts.dqkv), .cos = acts.cos, .sin = acts.sin, .backward = true});
    if (config_.qk_norm) {
        const Heads raw = heads_of(a.qkv, a.qkv, acts.packs, acts.length);
        rmsnorm_backward(ctx, {.din = flat_tokens(d.q),
                               .dweight = gradients.q_norm,
                               .dout = flat_tokens(d.q),
                               .in = flat_tokens(raw.q),
                               .rstd = a.q_rstd,
                               .weight = w.q_norm,
                               .scratch = acts.scratch});
        rmsnorm_backward(ctx, {.din = flat_tokens(d.k),
                               .dweight = gradients.k_norm,
                               .dout = flat_tokens(d.k),
                               .in = flat_tokens(raw.k),
                               .rstd = a.k_rstd,
                               .weight = w.k_norm,
                               .scratch = acts.scratch});
    }
    // Below the first adapters nothing is learned.
    const bool lowest = layer == 0 && gradients.input_norm.empty();
    const Tensor dnormed = lowest ? Tensor() : acts.dnormed;
    linear_backward(ctx, {.din = dnormed,
                          .dweight = gradients.qkv,
                          .dweight_mode = matrices,
                          .dbias = gradients.qkv_bias,
                          .dout = acts.dqkv,
                          .in = a.normed,
                          .weight = w.qkv,
                          .scratch = acts.scratch});
    adapt_backward(ctx, input, acts, layer, Product::qkv, gradients,
                   {.din = dnormed, .dout = acts.dqkv, .in = a.normed});
    if (lowest) return;
    rmsnorm_backward(ctx, {.din = acts.dstream,
                           .din_mode = Grad::accumulate,
                           .dweight = gradients.input_norm,
                           .dout = acts.dnormed,
                           .in = a.in,
                           .rstd = a.input_rstd,
                           .weight = w.input_norm,
                           .scratch = acts.scratch});
}

void Transformer::backward(const Context& ctx, const TransformerInput& input, Activations& acts,
                           const ModelGradients& gradients) const {
    require(acts.training, "backward needs activations laid out for training");
    require(input.adapters, "backward goes through the adapters");
    rmsnorm_backward(ctx, {.din = acts.dstream,
                           .dweight = gradients.final_norm,
                           .dout = acts.dhidden,
                           .in = acts.out,
                           .rstd = acts.final_rstd,
                           .weight = weights_.final_norm,
                           .scratch = acts.scratch});
    input.after_backward(std::ssize(weights_.blocks));
    for (size_t l = weights_.blocks.size(); l-- > 0;) {
        const BlockParameters &w = weights_.blocks[l], &g = gradients.blocks[l];
        BlockActivations& a = acts.blocks[l];
        recompute_block(ctx, input, acts, static_cast<int64_t>(l));
        // Adapters add to the product's part of dswiglu.
        const bool adapted_down = adapted(input, static_cast<int64_t>(l), Product::down);
        linear_backward(ctx, {.din = adapted_down ? acts.dswiglu : Tensor(),
                              .dweight = g.down,
                              .dweight_mode = gradients.matrices,
                              .dbias = g.down_bias,
                              .dout = acts.dstream,
                              .in = a.swiglu,
                              .weight = w.down,
                              .scratch = acts.scratch});
        if (adapted_down) {
            adapt_backward(ctx, input, acts, static_cast<int64_t>(l), Product::down, g,
                           {.din = acts.dswiglu, .dout = acts.dstream, .in = a.swiglu});
            swiglu_backward(ctx, {.dgate_up = a.gate_up, .dout = acts.dswiglu, .gate_up = a.gate_up});
        } else {
            down_swiglu_backward(ctx, {.dgate_up = a.gate_up,
                                       .dswiglu = acts.dswiglu,
                                       .dout = acts.dstream,
                                       .weight = w.down,
                                       .gate_up = a.gate_up});
        }
        linear_backward(ctx, {.din = acts.dnormed,
                              .dweight = g.gate_up,
                              .dweight_mode = gradients.matrices,
                              .dbias = g.gate_up_bias,
                              .dout = a.gate_up,
                              .in = a.mid_normed,
                              .weight = w.gate_up,
                              .scratch = acts.scratch});
        adapt_backward(ctx, input, acts, static_cast<int64_t>(l), Product::gate_up, g,
                       {.din = acts.dnormed, .dout = a.gate_up, .in = a.mid_normed});
        rmsnorm_backward(ctx, {.din = acts.dstream,
                               .din_mode = Grad::accumulate,
                               .dweight = g.post_attention_norm,
                               .dout = acts.dnormed,
                               .in = a.mid,
                               .rstd = a.mid_rstd,
                               .weight = w.post_attention_norm,
                               .scratch = acts.scratch});
        attention_backward(ctx, input, acts, static_cast<int64_t>(l), g, gradients.matrices);
        input.after_backward(static_cast<int64_t>(l));
    }
    if (!gradients.embedding.empty())
        embedding_backward(ctx, {.dweight = gradients.embedding, .dout = acts.dstream, .index = input.token_index});
    input.after_backward(embedding_layer);
}

}  // namespace colonnade
