#include "attention/flashmask.h"

#include "attention/cuda_kernels.h"
#include "attention/flashmask_cpu.h"
#include "attention/hopper/hopper.h"

namespace colonnade {
namespace {

using flashmask_cpu::Shape;

/// The checks of one call: every operand must be on the context's device and have q's dtype.
struct Check {
    Device device;
    DType dtype;

    Check(const Context& ctx, const Tensor& q) : device(ctx.device), dtype(q.dtype) {
        const bool gpu = device == Device::cuda;
        const bool held = gpu == (dtype == DType::bf16) && gpu == (ctx.gpu != nullptr) &&
                          (gpu || dtype == DType::f32 || dtype == DType::f64);
        if (!held) fail(Exit::internal, "flashmask has no kernel for {} on device {}", name_of(dtype), name_of(device));
    }

    /// GPU kernels copy 16 bytes at a time.
    bool aligned(const Tensor& t) const {
        if (device == Device::cpu) return true;
        bool held = reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
        for (int d = 0; d < 3; ++d) held = held && (t.size(d) <= 1 || t.stride[static_cast<size_t>(d)] % 8 == 0);
        return held;
    }
    void operator()(const char* name, const Tensor& t, const std::array<int64_t, 4>& shape) const {
        const bool held = t.rank == 4 && t.shape == shape && t.dtype == dtype && t.device == device &&
                          (t.size(3) == 1 || t.stride[3] == 1) && t.stride[1] >= t.size(3);
        if (!held)
            fail(Exit::internal,
                 "flashmask: {} is {} on {}, expected [{}, {}, {}, {}] {} on {}, each head of each token contiguous",
                 name, describe(t), name_of(t.device), shape[0], shape[1], shape[2], shape[3], name_of(dtype),
                 name_of(device));
        if (!aligned(t))
            fail(Exit::internal, "flashmask: {} {} at {} with strides {}, {}, {}: expected whole multiples of 16 bytes",
                 name, describe(t), t.data, t.stride[0], t.stride[1], t.stride[2]);
    }
};

void check_plan(const TilePlan& plan, const ColumnMask& mask, Device device) {
    const auto blocks = [](int64_t n, int64_t tile) { return (n + tile - 1) / tile; };
    require(
        plan.batch == mask.batch && plan.heads == mask.heads && plan.row_blocks == blocks(mask.rows, plan.tile_rows) &&
            plan.column_blocks == blocks(mask.columns, plan.tile_columns),
        "flashmask: a plan of batch {}, {} heads, {} x {} blocks for a mask of batch {}, {} heads, {} x {}", plan.batch,
        plan.heads, plan.row_blocks, plan.column_blocks, mask.batch, mask.heads, mask.rows, mask.columns);
    require(plan.device() == device, "flashmask: a plan made for device {} on device {}", name_of(plan.device()),
            name_of(device));
    require(device == Device::cpu || mask.position_window == 0 || !plan.gpu.positions.empty(),
            "flashmask: a plan without positions for a mask with a window of {} positions", mask.position_window);
}

template <typename Args>
Shape checked_shape(const Check& check, const Args& args) {
    if (args.q.rank != 4 || args.k.rank != 4)
        fail(Exit::internal, "flashmask: q is {}, k is {}, expected 4 dims", describe(args.q), describe(args.k));
    const Shape s{args.q.size(0), args.q.size(1), args.k.size(1), args.q.size(2), args.k.size(2), args.q.size(3)};
    require(s.head_dim >= 1 && s.head_dim <= 256, "flashmask: head_dim is {}, expected 1..256", s.head_dim);
    if (!flashmask_runs(check.device, s.head_dim))
        fail(Exit::config, "head_dim is {}: attention on a GPU has kernels for 64, 96, 128 and 256", s.head_dim);
    require(s.kv_heads >= 1 && s.heads % s.kv_heads == 0, "flashmask: {} heads, expected a multiple of the {} kv_heads",
            s.heads, s.kv_heads);
    const std::array<int64_t, 4> queries{s.batch, s.rows, s.heads, s.head_dim},
        keys{s.batch, s.columns, s.kv_heads, s.head_dim};
    check("q", args.q, queries);
    check("k", args.k, keys);
    check("v", args.v, keys);
    check("out", args.out, queries);
    const Tensor& lse = args.lse;
    const bool lse_held = lse.rank == 3 && lse.dtype == sum_dtype(check.dtype) && lse.device == check.device &&
                          lse.contiguous() && lse.size(0) == s.batch && lse.size(1) == s.heads && lse.size(2) == s.rows;
    if (!lse_held)
        fail(Exit::internal, "flashmask: lse is {} on {}, expected contiguous [{}, {}, {}] {} on {}", describe(lse),
             name_of(lse.device), s.batch, s.heads, s.rows, name_of(sum_dtype(check.dtype)), name_of(check.device));
    const ColumnMask& mask = args.mask;
    require(mask.batch == s.batch && mask.rows == s.rows && mask.columns == s.columns && mask.heads >= 1 &&
                s.heads % mask.heads == 0,
            "flashmask: a mask of batch {}, {} heads, {} x {} for batch {}, {} heads, {} x {}", mask.batch, mask.heads,
            mask.rows, mask.columns, s.batch, s.heads, s.rows, s.columns);
    check_plan(args.plan, mask, check.device);
    return s;
}

}  // namespace

bool flashmask_runs(Device device, int64_t head_dim) {
    if (device == Device::cpu) return head_dim >= 1 && head_dim <= 256;
    return head_dim == 64 || head_dim == 96 || head_dim == 128 || head_dim == 256;
}

void flashmask_forward(const Context& ctx, const FlashMaskForward& args) {
    const Shape shape = checked_shape(Check(ctx, args.q), args);
    const PhaseTimer timer(ctx, "attention");
    if (ctx.device == Device::cuda)
        return cuda::hopper_supports(ctx, args) ? cuda::hopper_forward(ctx, args) : cuda::portable_forward(ctx, args);
    flashmask_cpu::forward(args, shape);
}

void flashmask_backward(const Context& ctx, const FlashMaskBackward& args) {
    const Check check(ctx, args.q);
    const Shape shape = checked_shape(check, args);
    check("dout", args.dout, args.q.shape);
    check("dq", args.dq, args.q.shape);
    check("dk", args.dk, args.k.shape);
    check("dv", args.dv, args.k.shape);
    if (ctx.device == Device::cuda) {
        const int64_t bytes = flashmask_scratch_bytes(args.q);
        const Tensor& scratch = args.scratch;
        const bool held = bytes == 0 || (scratch.device == Device::cuda && scratch.dtype == DType::u8 &&
                                         scratch.contiguous() && scratch.numel() >= bytes && scratch.data &&
                                         reinterpret_cast<uintptr_t>(scratch.data) % Arena::alignment == 0);
        if (!held)
            fail(Exit::internal,
                 "flashmask: scratch is {} on {} at {}, expected {} bytes of u8 on cuda, 256-byte aligned",
                 describe(scratch), name_of(scratch.device), scratch.data, bytes);
    }
    const PhaseTimer timer(ctx, "attention");
    if (ctx.device == Device::cuda)
        return cuda::hopper_supports(ctx, args) ? cuda::hopper_backward(ctx, args) : cuda::portable_backward(ctx, args);
    flashmask_cpu::backward(args, shape);
}

int64_t flashmask_scratch_bytes(const Tensor& q) {
    if (q.device == Device::cpu) return 0;
    require(q.rank == 4, "flashmask: q is {}, expected 4 dims", describe(q));
    return std::max(cuda::portable_scratch_bytes(q.size(0), q.size(1), q.size(2), q.size(3)),
                    cuda::hopper_scratch_bytes(q.size(0), q.size(1), q.size(2), q.size(3)));
}

}  // namespace colonnade
