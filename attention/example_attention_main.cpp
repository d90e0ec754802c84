// example_attention: the attention library alone, from a mask to gradients, on a GPU in bf16 or on the CPU in f32.
// Start from this code; docs/attention.md explains it. It links colonnade::attention and nothing else of this project.

#include <chrono>
#include <cmath>

#include "attention/dense.h"
#include "attention/flashmask.h"
#include "attention/tensor_values.h"
#include "engine/device/device.h"
#include "engine/device/philox.h"
#include "engine/device/threads.h"

using namespace colonnade;

namespace {

constexpr int64_t batch = 1, length = 1024, heads = 4, kv_heads = 2, head_dim = 64;

/// Everything on the device. Laid out twice: on a planning arena, which counts bytes, and on a real one.
struct Buffers {
    Tensor q, k, v, out, lse, dout, dq, dk, dv, scratch;
    GpuTilePlan plan;  // empty on the CPU

    Buffers(Arena& arena, DType dtype, const ColumnMask& mask) {
        const auto of_heads = [&](int64_t n) { return arena.tensor("attention", dtype, {batch, length, n, head_dim}); };
        q = of_heads(heads), out = of_heads(heads), dout = of_heads(heads), dq = of_heads(heads);
        k = of_heads(kv_heads), v = of_heads(kv_heads), dk = of_heads(kv_heads), dv = of_heads(kv_heads);
        lse = arena.tensor("attention", sum_dtype(dtype), {batch, heads, length});
        scratch = arena.tensor("scratch", DType::u8, {flashmask_scratch_bytes(q)});
        plan = GpuTilePlan::lay_out(arena, mask);
    }
};

/// Compares the results with those of dense attention in double; waits for the GPU.
AttentionCheck compare(const Context& ctx, const Buffers& x, const ColumnMask& mask, double scale) {
    const auto values = [&](const Tensor& t) { return read_values(ctx, t); };
    const AttentionResults results{values(x.out), values(x.lse), values(x.dq), values(x.dk), values(x.dv)};
    return compare_with_dense({.batch = batch,
                               .rows = length,
                               .columns = length,
                               .heads = heads,
                               .kv_heads = kv_heads,
                               .head_dim = head_dim,
                               .scale = scale,
                               .q = values(x.q),
                               .k = values(x.k),
                               .v = values(x.v),
                               .dout = values(x.dout)},
                              mask, x.q.dtype, {&results, 1});
}

int run() {
    // 1. A device. Every call takes its context.
    const auto gpu = cuda_devices().empty() ? nullptr : std::make_unique<Gpu>();
    const Context ctx{.device = gpu ? Device::cuda : Device::cpu, .gpu = gpu.get()};
    const DType dtype = gpu ? DType::bf16 : DType::f32;

    // 2. A mask: three causal documents that do not see each other, and 24 tokens of padding.
    const ColumnMask mask = causal_document_mask(length, {300, 400, 1000});

    // 3. Memory with random operands.
    Arena planned(ctx.device);
    Buffers(planned, dtype, mask);
    Arena arena(ctx.device, planned.bytes());
    const Buffers x(arena, dtype, mask);
    uint64_t stream = 0;
    for (const Tensor& operand : {x.q, x.k, x.v, x.dout}) {
        const Philox random{1, stream++};
        write_values(ctx, operand, [&](int64_t i) { return random.normal(static_cast<uint64_t>(i)); });
    }

    // 4. The tile plan: once per batch, for all layers and both passes.
    const TilePlan plan = make_tile_plan(ctx, x.plan, mask);

    // 5. Both passes. On a GPU they are enqueued and nothing waits.
    const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
    const auto attention = [&] {
        flashmask_forward(
            ctx,
            {.out = x.out, .lse = x.lse, .q = x.q, .k = x.k, .v = x.v, .mask = mask, .plan = plan, .scale = scale});
        flashmask_backward(ctx, {.dq = x.dq,
                                 .dk = x.dk,
                                 .dv = x.dv,
                                 .dout = x.dout,
                                 .out = x.out,
                                 .lse = x.lse,
                                 .q = x.q,
                                 .k = x.k,
                                 .v = x.v,
                                 .mask = mask,
                                 .plan = plan,
                                 .scale = scale,
                                 .scratch = x.scratch});
    };
    attention();

    // 6. A comparison with dense attention in double, on the same operands.
    const auto [errors, bounds] = compare(ctx, x, mask, scale);

    // 7. The time.
    constexpr int runs = 20;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < runs; ++i) attention();
    if (gpu) gpu->synchronize();
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;

    fmt::print("{}, {}: {} tokens, {} heads, {} kv_heads, head_dim {}, {:.1f} % of pairs visible\n",
               gpu ? gpu->name() : "cpu", name_of(dtype), length, heads, kv_heads, head_dim,
               100 * static_cast<double>(count_visible_pairs(mask)) / (length * length));
    fmt::print("worst relative error (bound): out {:.1e} ({:.0e}), lse {:.1e} ({:.0e}), dq {:.1e} ({:.0e}), ",
               errors.out, bounds.out, errors.lse, bounds.lse, errors.dq, bounds.dq);
    fmt::print("dk {:.1e} ({:.0e}), dv {:.1e} ({:.0e})\n", errors.dk, bounds.dk, errors.dv, bounds.dv);
    fmt::print("forward and backward: {:.3f} ms\n", elapsed.count() / runs);
    return static_cast<int>(errors.within(bounds) ? Exit::ok : Exit::numerics);
}

}  // namespace

int main() {
    settle_libraries();
    return run_program("example_attention", run);
}
