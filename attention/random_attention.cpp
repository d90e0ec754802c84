#include "attention/random_attention.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "attention/tensor_values.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

using Operands = RandomAttention::Operands;

Operands lay_out(Arena& arena, const ColumnMask& mask, const AttentionSize& size) {
    const auto queries = [&] {
        return arena.tensor("operands", size.dtype, {mask.batch, mask.rows, size.heads, size.head_dim});
    };
    const auto keys = [&] {
        return arena.tensor("operands", size.dtype, {mask.batch, mask.columns, size.kv_heads, size.head_dim});
    };
    Operands x;
    x.q = queries(), x.dout = queries(), x.out = queries(), x.dq = queries();
    x.k = keys(), x.v = keys(), x.dk = keys(), x.dv = keys();
    x.lse = arena.tensor("operands", sum_dtype(size.dtype), {mask.batch, size.heads, mask.rows});
    x.scratch = arena.tensor("scratch", DType::u8, {flashmask_scratch_bytes(x.q)});
    x.plan = GpuTilePlan::lay_out(arena, mask);
    return x;
}

size_t planned_bytes(const Context& ctx, const ColumnMask& mask, const AttentionSize& size) {
    Arena arena(ctx.device);
    lay_out(arena, mask, size);
    return arena.bytes();
}

}  // namespace

TilePlan tile_plan_of(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask,
                      const AttentionSize& size) {
    if (ctx.device == Device::cuda || (size.tile_rows == 0 && size.tile_columns == 0))
        return make_tile_plan(ctx, memory, mask);
    return make_tile_plan(mask, size.tile_rows ? size.tile_rows : 64, size.tile_columns ? size.tile_columns : 64);
}

RandomAttention::RandomAttention(const Context& ctx, const ColumnMask& mask, const AttentionSize& size)
    : ctx_(ctx), mask_(mask), size_(size), arena_(ctx.device, planned_bytes(ctx, mask, size)) {
    x_ = lay_out(arena_, mask, size);
    uint64_t stream = 0;
    for (const Tensor& tensor : {x_.q, x_.k, x_.v, x_.dout}) draw(tensor, stream++);
    make_plan();
}

void RandomAttention::make_plan() {
    plan_ = tile_plan_of(ctx_, x_.plan, mask_, size_);
}

void RandomAttention::forward() const {
    flashmask_forward(ctx_, {.out = x_.out,
                             .lse = x_.lse,
                             .q = x_.q,
                             .k = x_.k,
                             .v = x_.v,
                             .mask = mask_,
                             .plan = plan_,
                             .scale = scale()});
}

void RandomAttention::backward(bool deterministic) const {
    Context ctx = ctx_;
    ctx.deterministic = deterministic;
    flashmask_backward(ctx, {.dq = x_.dq,
                             .dk = x_.dk,
                             .dv = x_.dv,
                             .dout = x_.dout,
                             .out = x_.out,
                             .lse = x_.lse,
                             .q = x_.q,
                             .k = x_.k,
                             .v = x_.v,
                             .mask = mask_,
                             .plan = plan_,
                             .scale = scale(),
                             .scratch = x_.scratch});
}

double RandomAttention::scale() const {
    return 1 / std::sqrt(static_cast<double>(size_.head_dim));
}

double RandomAttention::active_share() const {
    int64_t active = plan_.cpu.active_tiles();
    if (ctx_.device == Device::cuda) {
        std::vector<int32_t> words(static_cast<size_t>(x_.plan.row_active.numel()));
        ctx_.gpu->download(words.data(), x_.plan.row_active);
        for (const int32_t word : words) active += std::popcount(static_cast<uint32_t>(word));
    }
    return plan_.tiles() == 0 ? 0 : static_cast<double>(active) / static_cast<double>(plan_.tiles());
}

/// Random values. Long tensors repeat the first values, because drawing all would take longer than a benchmark.
void RandomAttention::draw(const Tensor& tensor, uint64_t stream) const {
    const Tensor all = tensor.view({tensor.numel()});
    const Philox random{1, stream};
    int64_t done = std::min(tensor.numel(), (int64_t{1} << 20) + 7);
    write_values(ctx_, all.slice(0, 0, done),
                 [&](int64_t i) { return size_.range * (2 * random.uniform(static_cast<uint64_t>(i)) - 1); });
    for (int64_t more; (more = std::min(done, tensor.numel() - done)) > 0; done += more) {
        const Tensor to = all.slice(0, done, done + more), from = all.slice(0, 0, more);
        if (ctx_.device == Device::cuda)
            ctx_.gpu->copy(to, from);
        else
            std::memcpy(to.data, from.data, from.bytes());
    }
}

AttentionCheck check_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size) {
    const RandomAttention attention(ctx, mask, size);
    const Operands& x = attention.operands();
    const auto values = [&](const Tensor& t) { return read_values(ctx, t); };
    const auto run = [&](bool deterministic) {
        // What a kernel does not write stays NaN.
        for (const Tensor& result : {x.out, x.lse, x.dq, x.dk, x.dv})
            write_values(ctx, result, [](int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
        attention.forward();
        attention.backward(deterministic);
        return AttentionResults{values(x.out), values(x.lse), values(x.dq), values(x.dk), values(x.dv)};
    };
    std::vector<AttentionResults> runs{run(false)};
    if (ctx.device == Device::cuda) runs.push_back(run(true));
    return compare_with_dense({.batch = mask.batch,
                               .rows = mask.rows,
                               .columns = mask.columns,
                               .heads = size.heads,
                               .kv_heads = size.kv_heads,
                               .head_dim = size.head_dim,
                               .scale = attention.scale(),
                               .q = values(x.q),
                               .k = values(x.k),
                               .v = values(x.v),
                               .dout = values(x.dout)},
                              mask, size.dtype, runs);
}

}  // namespace colonnade
