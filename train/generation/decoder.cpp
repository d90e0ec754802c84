#include "train/generation/decoder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "attention/decode.h"
#include "engine/device/device_memory.h"
#include "layers/gather.h"
#include "layers/kv_cache.h"

namespace colonnade {
namespace {

constexpr int64_t least_rows = 16;  ///< of logits(), so that prompts need few calls

Device device_of(const DecoderOptions& options) {
    return options.gpu ? Device::cuda : Device::cpu;
}
DType dtype_of(Device device) {
    return device == Device::cuda ? DType::bf16 : DType::f32;
}

int64_t widest_low_rank(const DecoderOptions& options) {
    int64_t widest = 1;
    if (options.lora)
        for (const Projection p : all_projections) widest = std::max(widest, options.lora->width(p));
    return widest;
}

/// Elements of the linear layers of a block.
int64_t block_elements(const ModelConfig& c) {
    return c.hidden_size * (c.qkv_width() + c.query_width() + 3 * c.intermediate_size);
}

bool is_quantised(const ModelParameters& weights) {
    return !weights.blocks.empty() && !weights.blocks.front().linear[Projection::qkv].quantised.empty();
}

void widen(const Tensor& to, const Tensor& from) {
    const int64_t n = from.numel();
    const bf16* const in = from.as<bf16>();
    float* const out = to.as<float>();
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) out[i] = float_from_bf16(in[i].bits);
}

}  // namespace

// --- Memory ---

Decoder::Buffers Decoder::Buffers::lay_out(Arena& arena, const ModelConfig& c, const DecoderOptions& options) {
    const Device device = arena.device();
    const DType dtype = dtype_of(device);
    const int64_t rows = std::max(least_rows, options.cache.slots), h = c.hidden_size, f = c.intermediate_size;
    const auto tensor = [&](DType type, std::initializer_list<int64_t> shape) {
        return arena.tensor("decode", type, shape);
    };
    Buffers b;
    b.x = tensor(dtype, {rows, h});
    b.qkv = tensor(dtype, {rows, c.qkv_width()});
    b.attention = tensor(dtype, {rows, c.query_width()});
    b.swiglu = tensor(dtype, {rows, f});
    b.logits = tensor(DType::f32, {rows, c.vocab_size});
    b.row_numbers = tensor(DType::i32, {rows});
    b.cos = tensor(DType::f32, {options.cache.capacity, c.head_dim / 2});
    b.sin = tensor(DType::f32, {options.cache.capacity, c.head_dim / 2});
    b.scratch = DecodeScratch::lay_out(arena, dtype,
                                       {.rows = rows,
                                        .in_features = std::max({h, c.query_width(), f}),
                                        .out_features = std::max({c.qkv_width(), 2 * f, h}),
                                        .low_rank = widest_low_rank(options)});
    const DecodeAttentionSizes sizes{options.cache.slots, c.num_attention_heads, c.num_key_value_heads, c.head_dim,
                                     options.cache.capacity};
    b.attention_scratch = tensor(DType::u8, {decode_attention_scratch_bytes(device, sizes)});
    b.state = SamplingRows::lay_out(arena, options.cache.slots, c.vocab_size);
    return b;
}

Decoder::Workspace Decoder::Workspace::lay_out(Arena& arena, const ModelConfig& c, const DecoderOptions& options,
                                               int64_t tokens, int64_t columns) {
    const auto numbers = [&] { return arena.tensor("prompts", DType::i32, {tokens}); };
    Workspace w{.tokens = numbers(), .positions = numbers(), .slots = numbers(), .masks = {}, .acts = {}};
    w.masks = AttentionMasks::lay_out(arena, c, 1, tokens, columns);
    w.acts =
        Activations::lay_out(arena, c, {.length = tokens, .dtype = dtype_of(arena.device()), .lora = options.lora});
    return w;
}

Tensor Decoder::lay_out_widened(Arena& arena, const ModelConfig& config, DType matrices, bool quantised) {
    if (!quantised && (arena.device() == Device::cuda || matrices != DType::bf16)) return {};
    return arena.tensor("widened weights", dtype_of(arena.device()), {block_elements(config)});
}

Arena Decoder::plan(const ModelConfig& config, const DecoderOptions& options, DType matrices, Device device,
                    bool quantised) {
    Arena arena(device);
    KvCache::lay_out(arena, config, options.cache, dtype_of(arena.device()));
    Buffers::lay_out(arena, config, options);
    lay_out_widened(arena, config, matrices, quantised);
    Workspace::lay_out(arena, config, options, options.piece, std::max(options.piece, options.cache.capacity));
    return arena;
}

Decoder::Decoder(const ModelConfig& config, const ModelParameters& weights, const DecoderOptions& options)
    : options_(options),
      weights_(weights),
      arena_(device_of(options),
             plan(config, options, weights.embedding.dtype, device_of(options), is_quantised(weights)).bytes()),
      model_(config, (lay_out(arena_, config), widening_parameters(weights))) {
    const Context ctx{.device = device_of(options), .gpu = options.gpu};
    std::vector<int32_t> positions(static_cast<size_t>(options.cache.capacity));
    std::iota(positions.begin(), positions.end(), 0);
    Arena memory(ctx.device, positions.size() * sizeof(int32_t) + Arena::alignment);
    const Tensor all = memory.tensor("positions", DType::i32, {options.cache.capacity});
    put(ctx, all, positions);
    rope_angles(ctx, {.cos = buffers_.cos, .sin = buffers_.sin, .positions = all, .frequencies = model_.frequencies()});
    if (ctx.gpu) ctx.gpu->synchronize();  // `memory` ends here
}

void Decoder::lay_out(Arena& arena, const ModelConfig& config) {
    cache_ = KvCache::lay_out(arena, config, options_.cache, dtype_of(arena.device()));
    buffers_ = Buffers::lay_out(arena, config, options_);
    widened_ = lay_out_widened(arena, config, weights_.embedding.dtype, is_quantised(weights_));
    workspace_ = arena.mark();
}

// --- bf16 matrices on the CPU: a pass over many tokens widens each layer before it reads it; so does every pass with
// --- quantised ones ---

ModelParameters Decoder::widening_parameters(const ModelParameters& weights) const {
    ModelParameters all = weights;
    if (widened_.rank == 0) return all;
    for (BlockParameters& block : all.blocks) {
        int64_t at = 0;
        for (const Projection p : all_projections) {
            LinearParameters& l = block.linear[p];
            const int64_t rows = l.quantised.empty() ? l.weight.size(0) : rows_of(l.quantised);
            const int64_t columns = l.quantised.empty() ? l.weight.size(1) : l.quantised.front().columns;
            l.weight = widened_.slice(0, at, at + rows * columns).view({rows, columns});
            l.quantised.clear();
            at += rows * columns;
        }
    }
    return all;
}

void Decoder::widen_layer(const Context& ctx, int64_t layer) const {
    if (layer < 0 || layer >= config().num_hidden_layers) return;
    for (const Projection p : all_projections) {
        const Tensor& to = model_.weights().blocks[static_cast<size_t>(layer)].linear[p].weight;
        const LinearParameters& from = weights_.blocks[static_cast<size_t>(layer)].linear[p];
        if (from.quantised.empty())
            widen(to, from.weight);
        else
            dequantise_rows(ctx, to, from.quantised);
    }
}

// --- Prompts ---

Tensor Decoder::read(const Context& ctx, std::span<const Piece> pieces) {
    std::vector<int32_t> tokens, positions, slots;
    std::vector<int64_t> ends;
    for (const Piece& piece : pieces) {
        const auto count = std::ssize(piece.tokens);
        require(piece.slot >= 0 && piece.slot < options_.cache.slots && count > 0 &&
                    piece.begin + count <= options_.cache.capacity && (piece.begin == 0 || pieces.size() == 1),
                "{} tokens at {} of slot {} among {} pieces", count, piece.begin, piece.slot, pieces.size());
        for (const int32_t token : piece.tokens) {
            if (token < 0 || token >= config().vocab_size)
                fail(Exit::data, "token {} is outside the vocabulary [0, {})", token, config().vocab_size);
            positions.push_back(
                static_cast<int32_t>(piece.begin + std::ssize(tokens) - (ends.empty() ? 0 : ends.back())));
            tokens.push_back(token);
            slots.push_back(static_cast<int32_t>(piece.slot));
        }
        ends.push_back(std::ssize(tokens));
    }
    const int64_t n = std::ssize(tokens), begin = pieces.front().begin;
    require(n <= options_.piece, "{} tokens in a pass of at most {}", n, options_.piece);
    arena_.release(workspace_);
    Workspace w = Workspace::lay_out(arena_, config(), options_, n, begin + n);
    put(ctx, w.tokens, tokens);
    put(ctx, w.positions, positions);
    put(ctx, w.slots, slots);
    w.masks.fill(ctx, pieces.size() == 1 ? causal_mask(n, begin + n) : causal_document_mask(n, ends));
    TransformerInput input{
        .packs = 1, .length = n, .tokens = w.tokens, .positions = w.positions, .masks = std::move(w.masks)};
    if (widened_.rank > 0) input.before_forward = [&](int64_t layer) { widen_layer(ctx, layer); };
    const CacheWrite cache{.cache = cache_,
                           .slots = w.slots,
                           .positions = w.positions,
                           .slot = pieces.front().slot,
                           .keys = begin > 0 ? begin + n : 0};
    model_.forward(ctx, input, w.acts, &cache);
    return w.acts.hidden;
}

Tensor Decoder::logits(const Context& ctx, const Tensor& hidden) {
    const Tensor out = buffers_.logits.slice(0, 0, hidden.size(0));
    decode_linear(ctx, {.out = out, .in = hidden, .weight = weights_.head, .scratch = buffers_.scratch});
    return out;
}

Tensor Decoder::logits_of(const Context& ctx, const Tensor& hidden, const std::vector<int32_t>& rows) {
    const auto count = std::ssize(rows);
    const Tensor numbers = buffers_.row_numbers.slice(0, 0, count), some = buffers_.x.slice(0, 0, count);
    put(ctx, numbers, rows);
    gather_rows(ctx, {.out = some, .in = hidden, .rows = numbers});
    return logits(ctx, some);
}

// --- Steps ---

void Decoder::set_seen(const Context& ctx, int64_t slot, std::span<const int32_t> tokens) {
    const Tensor& seen = buffers_.state.seen;
    std::vector<int32_t> words(static_cast<size_t>(seen.size(1)));
    for (const int32_t token : tokens) {
        int32_t& word = words[static_cast<size_t>(token / 32)];
        word = static_cast<int32_t>(static_cast<uint32_t>(word) | 1u << (token % 32));
    }
    put(ctx, seen.slice(0, slot, slot + 1), words);
}

void Decoder::set_rows(const Context& ctx, std::span<const Row> rows) {
    require(waiting() == 0, "{} steps are under way", waiting());
    count_ = std::ssize(rows);
    longest_ = 0;
    std::vector<int32_t> tokens, positions, slots, drawn;
    std::vector<Sampling> settings;
    for (const Row& row : rows) {
        require(row.position < options_.cache.capacity && row.slot < options_.cache.slots, "position {} of slot {}",
                row.position, row.slot);
        tokens.push_back(row.token);
        positions.push_back(row.position);
        slots.push_back(static_cast<int32_t>(row.slot));
        drawn.push_back(row.drawn);
        settings.push_back(row.sampling);
        longest_ = std::max<int64_t>(longest_, row.position + 1);
    }
    const SamplingRows state = buffers_.state.first(count_);
    put(ctx, state.tokens, tokens);
    put(ctx, state.positions, positions);
    put(ctx, state.slots, slots);
    put(ctx, state.drawn, drawn);
    put(ctx, state.settings, settings.data());
}

void Decoder::enqueue_layer(const Context& ctx, int64_t layer, const SamplingRows& state, int64_t longest) {
    const ModelConfig& c = config();
    const bool quantised = is_quantised(weights_);
    if (quantised) widen_layer(ctx, layer);
    const BlockParameters& w = (quantised ? model_.weights() : weights_).blocks[static_cast<size_t>(layer)];
    const auto rows = [&](const Tensor& t) { return t.slice(0, 0, count_); };
    const Tensor x = rows(buffers_.x), qkv = rows(buffers_.qkv), attention = rows(buffers_.attention),
                 swiglu = rows(buffers_.swiglu);
    const auto linear = [&](Projection p, const Tensor& out, const Tensor& in, const Tensor& norm, const Tensor& add,
                            DecodeFinish finish) {
        const LinearParameters& l = w.linear[p];
        decode_linear(ctx, {.out = out,
                            .in = in,
                            .weight = l.weight,
                            .bias = l.bias,
                            .norm = norm,
                            .eps = c.rms_norm_eps,
                            .adapters = &l.adapters,
                            .add = add,
                            .finish = finish,
                            .scratch = buffers_.scratch});
    };
    linear(Projection::qkv, qkv, x, w.input_norm, {}, DecodeFinish::none);
    decode_attention(ctx, {.out = attention.view({count_, c.num_attention_heads, c.head_dim}),
                           .qkv = qkv,
                           .k = cache_.k[static_cast<size_t>(layer)],
                           .v = cache_.v[static_cast<size_t>(layer)],
                           .slots = state.slots,
                           .positions = state.positions,
                           .cos = buffers_.cos,
                           .sin = buffers_.sin,
                           .q_norm = w.q_norm,
                           .k_norm = w.k_norm,
                           .eps = c.rms_norm_eps,
                           .window = c.windows.empty() ? 0 : c.windows[static_cast<size_t>(layer)],
                           .scale = 1 / std::sqrt(static_cast<double>(c.head_dim)),
                           .longest = longest,
                           .scratch = buffers_.attention_scratch,
                           .read_early = true});
    linear(Projection::o, x, attention, {}, x, DecodeFinish::none);
    linear(Projection::gate_up, swiglu, x, w.post_attention_norm, {}, DecodeFinish::swiglu);
    linear(Projection::down, x, swiglu, {}, x, DecodeFinish::none);
}

void Decoder::enqueue_step(const Context& ctx, int64_t longest) {
    const SamplingRows state = buffers_.state.first(count_);
    const Tensor x = buffers_.x.slice(0, 0, count_);
    embedding_forward(ctx, {.out = x, .tokens = state.tokens, .weight = weights_.embedding});
    for (int64_t l = 0; l < config().num_hidden_layers; ++l) enqueue_layer(ctx, l, state, longest);
    decode_linear(ctx, {.out = last_logits(),
                        .in = x,
                        .weight = weights_.head,
                        .norm = weights_.final_norm,
                        .eps = config().rms_norm_eps,
                        .scratch = buffers_.scratch});
    sample_tokens(ctx, {.logits = last_logits(), .rows = state});
}

void Decoder::step(const Context& ctx) {
    require(count_ > 0 && longest_ <= options_.cache.capacity, "a step of {} rows, the longest of {} tokens of {}",
            count_, longest_, options_.cache.capacity);
    if (!ctx.gpu) {
        enqueue_step(ctx, longest_);
    } else {
        constexpr uint64_t shortest = 1024;
        const auto bucket = static_cast<int64_t>(std::bit_ceil(std::max(shortest, static_cast<uint64_t>(longest_))));
        const int64_t longest = std::min(bucket, options_.cache.capacity);
        Graph& graph = graphs_[{count_, longest}];
        if (ctx.profile || !graph.warm)
            enqueue_step(ctx, longest);
        else if (!graph.graph)
            graph.graph = std::make_unique<GpuGraph>(*ctx.gpu, [&] { enqueue_step(ctx, longest); });
        if (!ctx.profile && graph.graph) graph.graph->enqueue();
        graph.warm = true;
    }
    ++longest_;
    keep_tokens(ctx);
}

void Decoder::sample(const Context& ctx, const Tensor& logits) {
    require(logits.size(0) == count_, "logits {} for {} rows", logits, count_);
    sample_tokens(ctx, {.logits = logits, .rows = buffers_.state.first(count_)});
    ++longest_;
    keep_tokens(ctx);
}

void Decoder::keep_tokens(const Context& ctx) {
    const Tensor& chosen = buffers_.state.chosen;
    if (!ctx.gpu) {
        const int32_t* const first = chosen.as<int32_t>();
        drawn_.emplace_back(first, first + count_);
        return;
    }
    if (idle_.empty()) idle_.push_back(std::make_unique<Readback>(*ctx.gpu, chosen.bytes()));
    pending_.push_back(std::move(idle_.back()));
    idle_.pop_back();
    pending_.back()->enqueue(chosen);
}

std::vector<int32_t> Decoder::take() {
    require(waiting() > 0, "no step is under way");
    std::vector<int32_t> tokens(static_cast<size_t>(count_));
    if (options_.gpu) {
        std::copy_n(static_cast<const int32_t*>(pending_.front()->get()), count_, tokens.begin());
        idle_.push_back(std::move(pending_.front()));
        pending_.pop_front();
    } else {
        tokens = std::move(drawn_.front());
        drawn_.pop_front();
    }
    if (std::ranges::find(tokens, -1) != tokens.end())
        fail(Exit::numerics, "the logits contain NaN: the weights of the model are bad");
    return tokens;
}

}  // namespace colonnade
