#pragma once
// One FlashMask call on packed rows [q heads | k heads | v heads] on either device, with its data as doubles on the
// host.

#include <bit>
#include <cmath>
#include <limits>

#include "attention/flashmask.h"
#include "attention/random_attention.h"
#include "attention/tensor_values.h"
#include "engine/device/philox.h"
#include "tests/support/test_gpu.h"

namespace colonnade {

inline Context context_on(Device device) {
    return {.device = device, .gpu = device == Device::cuda ? test_gpu() : nullptr};
}

struct CallSize {
    int64_t heads, kv_heads, dim;
    DType dtype = DType::f64;
};

class AttentionCall {
  public:
    Context ctx;
    ColumnMask mask;
    TilePlan plan;
    std::vector<double> qkv, dout;       ///< inputs: [batch, rows, heads + 2 kv_heads, dim], [batch, rows, heads, dim]
    std::vector<double> out, lse, dqkv;  ///< results of run()

    AttentionCall(const Context& context, ColumnMask m, const CallSize& size)
        : ctx(context), mask(std::move(m)), size_(size), arena_(lay_out()) {
        require(mask.rows == mask.columns, "packed rows need as many queries as keys");
        const auto draw = [](const Tensor& t, uint64_t stream) {
            std::vector<double> values;
            for (int64_t i = 0; i < t.numel(); ++i)
                values.push_back(Philox{5, stream}.normal(static_cast<uint64_t>(i)));
            return values;
        };
        qkv = draw(qkv_, 0), dout = draw(dout_, 1);
        make_plan();
    }
    AttentionCall(const AttentionCall&) = delete;
    AttentionCall& operator=(const AttentionCall&) = delete;

    FlashMaskForward forward() const { return {out_, lse_, q(), k(), v(), mask, plan, scale()}; }
    FlashMaskBackward backward() const {
        return {part(dqkv_, 0, size_.heads),
                part(dqkv_, size_.heads, size_.kv_heads),
                part(dqkv_, size_.heads + size_.kv_heads, size_.kv_heads),
                dout_,
                out_,
                lse_,
                q(),
                k(),
                v(),
                mask,
                plan,
                scale(),
                scratch_};
    }

    /// Makes the plan of the current mask.
    void make_plan() { plan = make_tile_plan(ctx, plan_memory_, mask); }
    void write() const {
        write_values(ctx, qkv_, [&](int64_t i) { return qkv[static_cast<size_t>(i)]; });
        write_values(ctx, dout_, [&](int64_t i) { return dout[static_cast<size_t>(i)]; });
    }
    /// Runs both passes. Results that a kernel does not write stay NaN.
    void run() {
        write();
        for (const Tensor& result : {out_, lse_, dqkv_})
            write_values(ctx, result, [](int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
        flashmask_forward(ctx, forward());
        flashmask_backward(ctx, backward());
        out = read_values(ctx, out_), lse = read_values(ctx, lse_), dqkv = read_values(ctx, dqkv_);
    }
    /// Compares the results of the last run with dense attention.
    AttentionCheck check() const {
        const auto inputs = read_values(ctx, qkv_);  // as rounded
        const int64_t h = size_.heads, g = size_.kv_heads;
        const AttentionResults results{out, lse, columns(dqkv, 0, h), columns(dqkv, h, g), columns(dqkv, h + g, g)};
        return compare_with_dense({.batch = mask.batch,
                                   .rows = mask.rows,
                                   .columns = mask.columns,
                                   .heads = h,
                                   .kv_heads = g,
                                   .head_dim = size_.dim,
                                   .scale = scale(),
                                   .q = columns(inputs, 0, h),
                                   .k = columns(inputs, h, g),
                                   .v = columns(inputs, h + g, g),
                                   .dout = read_values(ctx, dout_)},
                                  mask, size_.dtype, {&results, 1});
    }
    int64_t width() const { return (size_.heads + 2 * size_.kv_heads) * size_.dim; }
    int64_t out_width() const { return size_.heads * size_.dim; }
    double scale() const { return 1 / std::sqrt(static_cast<double>(size_.dim)); }

    Tensor q() const { return part(qkv_, 0, size_.heads); }
    Tensor k() const { return part(qkv_, size_.heads, size_.kv_heads); }
    Tensor v() const { return part(qkv_, size_.heads + size_.kv_heads, size_.kv_heads); }

  private:
    Arena lay_out() {
        Arena planned(ctx.device);
        lay_out(planned);
        Arena arena(ctx.device, planned.bytes());
        lay_out(arena);
        return arena;
    }
    void lay_out(Arena& arena) {
        const int64_t all_heads = size_.heads + 2 * size_.kv_heads;
        qkv_ = arena.tensor("call", size_.dtype, {mask.batch, mask.rows, all_heads, size_.dim});
        dqkv_ = arena.tensor("call", size_.dtype, {mask.batch, mask.rows, all_heads, size_.dim});
        out_ = arena.tensor("call", size_.dtype, {mask.batch, mask.rows, size_.heads, size_.dim});
        dout_ = arena.tensor("call", size_.dtype, {mask.batch, mask.rows, size_.heads, size_.dim});
        lse_ = arena.tensor("call", sum_dtype(size_.dtype), {mask.batch, size_.heads, mask.rows});
        scratch_ = arena.tensor("call", DType::u8, {flashmask_scratch_bytes(q())});
        plan_memory_ = GpuTilePlan::lay_out(arena, mask);
    }
    static Tensor part(const Tensor& packed, int64_t first, int64_t count) {
        return packed.slice(2, first, first + count);
    }
    std::vector<double> columns(const std::vector<double>& packed, int64_t first, int64_t count) const {
        std::vector<double> values;
        for (size_t row = 0; row < packed.size(); row += static_cast<size_t>(width()))
            for (int64_t x = first * size_.dim; x < (first + count) * size_.dim; ++x)
                values.push_back(packed[row + static_cast<size_t>(x)]);
        return values;
    }

    CallSize size_;
    Tensor qkv_, dqkv_, out_, dout_, lse_, scratch_;
    GpuTilePlan plan_memory_;
    Arena arena_;
};

/// The bits of results, for comparisons in which -0 differs from 0 and NaN equals itself.
inline std::vector<uint64_t> bits_of(const std::vector<double>& values) {
    std::vector<uint64_t> bits;
    for (const double value : values) bits.push_back(std::bit_cast<uint64_t>(value));
    return bits;
}

}  // namespace colonnade
