#include "train/model/activations.h"

#include <algorithm>

#include "attention/flashmask.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"

namespace colonnade {
namespace {

using Shape = std::initializer_list<int64_t>;

/// Lays tensors out in their groups of the memory plan.
struct Plan {
    Arena& arena;
    const ModelConfig& config;
    const ActivationLayout& layout;

    Tensor saved(Shape shape) const { return arena.tensor("activations", layout.dtype, shape); }
    Tensor statistic(Shape shape) const { return arena.tensor("activations", sum_dtype(layout.dtype), shape); }
    Tensor gradient(Shape shape) const { return arena.tensor("activation gradients", layout.dtype, shape); }
};

/// Which activations of a block are its own; it shares the others with the first block.
struct Own {
    bool stream;  ///< its input, unless that is offloaded
    bool cheap;   ///< outputs of norms and of SwiGLU
    bool rest;
    bool keeps_cheap, keeps_rest;  ///< for backward
    Own(const ActivationLayout& layout, int64_t block) {
        const bool first = block == 0, kept = layout.training && block >= layout.lowest;
        keeps_cheap = kept && layout.recompute == Recompute::none;
        keeps_rest = kept && layout.recompute != Recompute::block;
        stream = first || kept;
        cheap = first || keeps_cheap;
        rest = first || keeps_rest;
    }
};

/// Whether a block's input has the buffer of that two blocks below, which is offloaded.
bool takes_turns(const Plan& plan, int64_t block) {
    const int64_t below = block - 2 - plan.layout.lowest_block();
    return below >= 0 && below < plan.layout.offloaded_of(plan.config.num_hidden_layers);
}

BlockActivations lay_out_block(const Plan& plan, const std::vector<BlockActivations>& before) {
    const ModelConfig& c = plan.config;
    const ActivationLayout& layout = plan.layout;
    const int64_t tokens = layout.tokens(), h = c.hidden_size, f = c.intermediate_size;
    const int64_t l = std::ssize(before);
    const bool first = l == 0, last = l + 1 == c.num_hidden_layers;
    // After the attention. What the first block shares has room for the others.
    const int64_t rows = first ? layout.most_rows() : last ? layout.head_rows() : tokens;
    const Own own(layout, l);
    const auto rows_of_mlp = [&](bool kept) { return kept ? rows : std::min(rows, layout.mlp_tile); };
    BlockActivations b = first ? BlockActivations() : before.front();
    if (own.stream) b.in = takes_turns(plan, l) ? before[l - 2].in : plan.saved({tokens, h});
    if (own.cheap) {
        b.normed = plan.saved({tokens, h});
        b.mid_normed = plan.saved({rows_of_mlp(own.keeps_cheap), h});
        b.swiglu = plan.saved({rows_of_mlp(own.keeps_cheap), f});
    }
    if (own.rest) {
        b.input_rstd = plan.statistic({tokens});
        b.qkv = plan.saved({first ? layout.most_rows() : tokens, c.qkv_width()});
        if (c.qk_norm) {
            b.qk = plan.saved({tokens, c.num_attention_heads + c.num_key_value_heads, c.head_dim});
            b.q_rstd = plan.statistic({tokens * c.num_attention_heads});
            b.k_rstd = plan.statistic({tokens * c.num_key_value_heads});
        }
        b.attention = plan.saved({tokens, c.query_width()});
        b.lse = plan.statistic({layout.packs, c.num_attention_heads, layout.length});
        b.mid = plan.saved({rows, h});
        b.mid_rstd = plan.statistic({rows});
        b.gate_up = plan.saved({rows_of_mlp(own.keeps_rest), 2 * f});
    }
    for (const Projection p : all_projections) {
        // The down projection is not recomputed with its block.
        const bool kept = p == Projection::down ? own.stream : own.rest;
        const int64_t width = layout.lora ? layout.lora->width(p) : 0;
        if (width > 0 && kept) b.lora_h[p] = plan.saved({p == Projection::qkv ? tokens : rows, width});
    }
    return b;
}

/// Leaves a block its own rows of what it may share with others.
void narrow_block(BlockActivations& b, int64_t tokens, int64_t rows) {
    const auto first_rows = [](Tensor& t, int64_t count) {
        if (t.rank > 0) t = t.slice(0, 0, std::min(count, t.size(0)));
    };
    first_rows(b.qkv, tokens);
    for (Tensor* t : {&b.mid, &b.mid_rstd, &b.mid_normed, &b.gate_up, &b.swiglu}) first_rows(*t, rows);
    for (const Projection p : {Projection::o, Projection::gate_up, Projection::down}) first_rows(b.lora_h[p], rows);
}

int64_t input_width(const ModelConfig& c, Projection p) {
    return p == Projection::o ? c.query_width() : p == Projection::down ? c.intermediate_size : c.hidden_size;
}

int64_t output_width(const ModelConfig& c, Projection p) {
    return p == Projection::qkv ? c.qkv_width() : p == Projection::gate_up ? 2 * c.intermediate_size : c.hidden_size;
}

void lay_out_adapters(Activations& a, const Plan& plan) {
    const ActivationLayout& layout = plan.layout;
    if (!layout.training || !layout.lora) return;
    int64_t largest_in = 0, widest_h = 0;
    for (const Projection p : all_projections) {
        const int64_t width = layout.lora->width(p);
        const bool mlp = p == Projection::gate_up || p == Projection::down;
        const int64_t rows = mlp ? std::min(layout.most_rows(), layout.mlp_tile) : layout.most_rows();
        if (width > 0) largest_in = std::max(largest_in, rows * input_width(plan.config, p));
        widest_h = std::max(widest_h, width);
    }
    if (layout.lora->dropout > 0) a.dropped = plan.gradient({largest_in});
    a.dlora_h = plan.gradient({layout.most_rows() * widest_h});
}

int64_t largest_weight(const ModelConfig& c) {
    int64_t largest = 0;
    for (const Projection p : all_projections) largest = std::max(largest, input_width(c, p) * output_width(c, p));
    return largest;
}

Fp8Room lay_out_fp8(const Plan& plan) {
    const ModelConfig& c = plan.config;
    const ActivationLayout& layout = plan.layout;
    Fp8Room::Largest largest{.rows = layout.most_rows(), .weight = largest_weight(c)};
    for (const Projection p : all_projections) {
        const bool mlp = p == Projection::gate_up || p == Projection::down;
        const int64_t rows = mlp ? std::min(layout.most_rows(), layout.mlp_tile) : layout.most_rows();
        const int64_t in = input_width(c, p), out = output_width(c, p);
        largest.elements = std::max(largest.elements, rows * (layout.training ? std::max(in, out) : in));
        largest.columns = std::max({largest.columns, in, out});
    }
    return Fp8Room::lay_out(plan.arena, "activations", layout.dtype, largest);
}

void lay_out_backward(Activations& a, const Plan& plan) {
    const ModelConfig& c = plan.config;
    const ActivationLayout& layout = plan.layout;
    const int64_t most = layout.most_rows(), h = c.hidden_size, f = c.intermediate_size;
    if (!layout.training) return;
    a.dhidden = plan.gradient({layout.head_rows(), h});
    a.dstream = plan.gradient({layout.tokens(), h});
    a.dqkv = plan.gradient({most, c.qkv_width()});
    a.dattention = plan.gradient({most, c.query_width()});
    a.dswiglu = plan.gradient({std::min(most, layout.mlp_tile), f});
    a.dnormed = plan.gradient({most, h});
    if (plan.arena.device() == Device::cpu) return;
    const Tensor queries(nullptr, layout.dtype, {layout.packs, layout.length, c.num_attention_heads, c.head_dim},
                         Device::cuda);
    const int64_t bytes =
        std::max({flashmask_scratch_bytes(queries), rmsnorm_scratch_bytes(h), rmsnorm_scratch_bytes(c.head_dim),
                  linear_scratch_bytes(std::max({c.qkv_width(), 2 * f, h}))});
    a.scratch = plan.arena.tensor("workspace", DType::u8, {bytes});
}

/// The rows of the last block's attention need no memory of their own. In training they are where the gradient of the
/// attention comes once they have been read; that gradient's rows are where d_qkv comes. In a forward pass they replace
/// the queries, keys and values, which nothing reads after the attention.
void place_attention_rows(Activations& a, const ModelConfig& c) {
    if (!a.layout.rows) return;
    const auto place_in = [rows = *a.layout.rows, width = c.query_width()](const Tensor& buffer) {
        return buffer.view({buffer.numel()}).slice(0, 0, rows * width).view({rows, width});
    };
    a.attention_rows = place_in(a.layout.training ? a.dattention : a.blocks.back().qkv);
    if (a.layout.training) a.dattention_rows = place_in(a.dqkv);
}

/// Leaves every tensor of blocks and attention the rows that it has.
void narrow_blocks(Activations& a) {
    const int64_t tokens = a.layout.tokens();
    for (BlockActivations& b : a.blocks)
        narrow_block(b, tokens, &b == &a.blocks.back() ? a.layout.head_rows() : tokens);
    if (!a.layout.training) return;
    for (Tensor* t : {&a.dqkv, &a.dattention}) *t = t->slice(0, 0, tokens);
}

}  // namespace

Activations Activations::lay_out(Arena& arena, const ModelConfig& c, const ActivationLayout& layout) {
    const Plan plan{arena, c, layout};
    const int64_t tokens = layout.tokens(), rows = layout.head_rows();
    Activations a;
    a.layout = layout;
    a.cos = plan.statistic({tokens, c.head_dim / 2});
    a.sin = plan.statistic({tokens, c.head_dim / 2});
    for (int64_t l = 0; l < c.num_hidden_layers; ++l) a.blocks.push_back(lay_out_block(plan, a.blocks));
    a.out = plan.saved({rows, c.hidden_size});
    a.final_rstd = plan.statistic({rows});
    a.hidden = plan.saved({rows, c.hidden_size});
    a.delta = plan.saved({layout.most_rows(), c.hidden_size});
    if (layout.quantised) a.weight = arena.tensor("frozen weights", layout.dtype, {largest_weight(c)});
    if (layout.fp8) a.fp8 = lay_out_fp8(plan);
    lay_out_adapters(a, plan);
    lay_out_backward(a, plan);
    place_attention_rows(a, c);
    narrow_blocks(a);
    return a;
}

}  // namespace colonnade
