#include "attention/flashmask.h"

#include "attention/flashmask_cpu.h"

namespace colonnade {
namespace {

using flashmask_cpu::Shape;

void check(const char* name, const Tensor& t, DType dtype, const std::array<int64_t, 4>& shape) {
    const bool held = t.rank == 4 && t.shape == shape && t.dtype == dtype && t.device == Device::cpu &&
                      (t.size(3) == 1 || t.stride[3] == 1) && t.stride[1] >= t.size(3);
    if (!held)
        fail(Exit::internal,
             "flashmask: {} is {} on {}, expected [{}, {}, {}, {}] {} on cpu, each head of each token contiguous", name,
             describe(t), name_of(t.device), shape[0], shape[1], shape[2], shape[3], name_of(dtype));
}

template <typename Args>
Shape checked_shape(const Context& ctx, const Args& args) {
    require_cpu(ctx, "flashmask");
    if (args.q.rank != 4 || args.k.rank != 4)
        fail(Exit::internal, "flashmask: q is {}, k is {}, expected 4 dims", describe(args.q), describe(args.k));
    const Shape s{args.q.size(0), args.q.size(1), args.k.size(1), args.q.size(2), args.k.size(2), args.q.size(3)};
    require(s.head_dim >= 1 && s.head_dim <= 256, "flashmask: head_dim is {}, expected 1..256", s.head_dim);
    require(s.kv_heads >= 1 && s.heads % s.kv_heads == 0, "flashmask: {} heads do not share {} kv_heads", s.heads,
            s.kv_heads);
    const DType dtype = args.q.dtype;
    const std::array<int64_t, 4> queries{s.batch, s.rows, s.heads, s.head_dim},
        keys{s.batch, s.columns, s.kv_heads, s.head_dim};
    check("q", args.q, dtype, queries);
    check("k", args.k, dtype, keys);
    check("v", args.v, dtype, keys);
    check("out", args.out, dtype, queries);
    const bool lse_held = args.lse.rank == 3 && args.lse.dtype == dtype && args.lse.contiguous() &&
                          args.lse.size(0) == s.batch && args.lse.size(1) == s.heads && args.lse.size(2) == s.rows;
    if (!lse_held)
        fail(Exit::internal, "flashmask: lse is {}, expected contiguous [{}, {}, {}] {}", describe(args.lse), s.batch,
             s.heads, s.rows, name_of(dtype));
    const ColumnMask& mask = args.mask;
    require(mask.batch == s.batch && mask.rows == s.rows && mask.columns == s.columns && mask.heads >= 1 &&
                s.heads % mask.heads == 0,
            "flashmask: a mask of batch {}, {} heads, {} x {} for batch {}, {} heads, {} x {}", mask.batch, mask.heads,
            mask.rows, mask.columns, s.batch, s.heads, s.rows, s.columns);
    const TilePlan& plan = args.plan;
    const auto blocks = [](int64_t n, int64_t tile) { return (n + tile - 1) / tile; };
    require(
        plan.batch == mask.batch && plan.heads == mask.heads && plan.row_blocks == blocks(mask.rows, plan.tile_rows) &&
            plan.column_blocks == blocks(mask.columns, plan.tile_columns),
        "flashmask: a plan of batch {}, {} heads, {} x {} blocks for a mask of batch {}, {} heads, {} x {}", plan.batch,
        plan.heads, plan.row_blocks, plan.column_blocks, mask.batch, mask.heads, mask.rows, mask.columns);
    return s;
}

}  // namespace

void flashmask_forward(const Context& ctx, const FlashMaskForward& args) {
    const PhaseTimer timer(ctx, "attention");
    flashmask_cpu::forward(args, checked_shape(ctx, args));
}

void flashmask_backward(const Context& ctx, const FlashMaskBackward& args) {
    const PhaseTimer timer(ctx, "attention");
    const Shape shape = checked_shape(ctx, args);
    check("dout", args.dout, args.q.dtype, args.q.shape);
    check("dq", args.dq, args.q.dtype, args.q.shape);
    check("dk", args.dk, args.q.dtype, args.k.shape);
    check("dv", args.dv, args.q.dtype, args.k.shape);
    flashmask_cpu::backward(args, shape);
}

}  // namespace colonnade
