#include "attention/measure.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "attention/flashmask.h"
#include "attention/tensor_values.h"
#include "engine/device/gpu_timer.h"
#include "engine/device/philox.h"
#include "engine/device/timing.h"

namespace colonnade {
namespace {

/// Operands and results of one attention call, forward and backward.
struct Operands {
    Tensor q, k, v, dout, out, lse, dq, dk, dv, scratch;
    GpuTilePlan plan;

    static Operands lay_out(Arena& arena, const ColumnMask& mask, const AttentionSize& size) {
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
};

/// Attention of one mask on one device, its operands drawn at random.
class Attention {
  public:
    Attention(const Context& ctx, const ColumnMask& mask, const AttentionSize& size)
        : ctx_(ctx), mask_(mask), size_(size), arena_(ctx.device, planned_bytes(ctx, mask, size)) {
        x_ = Operands::lay_out(arena_, mask, size);
        uint64_t stream = 0;
        for (const Tensor& tensor : {x_.q, x_.k, x_.v, x_.dout}) draw(tensor, stream++);
        make_plan();
    }

    void make_plan() { plan_ = tile_plan_of(ctx_, x_.plan, mask_, size_); }
    void forward() const {
        flashmask_forward(ctx_, {.out = x_.out,
                                 .lse = x_.lse,
                                 .q = x_.q,
                                 .k = x_.k,
                                 .v = x_.v,
                                 .mask = mask_,
                                 .plan = plan_,
                                 .scale = scale()});
    }
    void backward(bool deterministic) const {
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
    const Operands& operands() const { return x_; }
    double scale() const { return 1 / std::sqrt(static_cast<double>(size_.head_dim)); }

    /// Active over all tiles.
    double tile_share() const {
        if (ctx_.device == Device::cpu) return plan_.visible_share();
        std::vector<int32_t> words(static_cast<size_t>(x_.plan.row_active.numel()));
        ctx_.gpu->download(words.data(), x_.plan.row_active);
        int64_t active = 0;
        for (const int32_t word : words) active += std::popcount(static_cast<uint32_t>(word));
        const int64_t tiles = plan_.batch * plan_.heads * plan_.row_blocks * plan_.column_blocks;
        return tiles == 0 ? 0 : static_cast<double>(active) / static_cast<double>(tiles);
    }

  private:
    /// Random values; long tensors repeat the first ones, as drawing all takes longer than what is timed.
    void draw(const Tensor& tensor, uint64_t stream) const {
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
    static size_t planned_bytes(const Context& ctx, const ColumnMask& mask, const AttentionSize& size) {
        Arena arena(ctx.device);
        Operands::lay_out(arena, mask, size);
        return arena.bytes();
    }

    Context ctx_;
    const ColumnMask& mask_;
    AttentionSize size_;
    Arena arena_;
    Operands x_;
    TilePlan plan_;
};

/// One untimed run, then `repeat` timed ones. `before` comes before each of them, and is not counted.
template <typename Body>
double median_seconds(
    const Context& ctx, int repeat, const Body& body, const std::function<void()>& before = [] {}) {
    body();
    if (ctx.device == Device::cuda) {
        GpuTimer timer(*ctx.gpu);
        for (int i = 0; i < repeat; ++i) {
            before();
            timer.start();
            body();
            timer.stop();
        }
        return median(timer.seconds());
    }
    std::vector<double> seconds;
    for (int i = 0; i < repeat; ++i) {
        const auto start = std::chrono::steady_clock::now();
        body();
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return median(std::move(seconds));
}

/// Distance of a from the oracle b: the largest difference, and the largest size of b.
struct Distance {
    double error = 0, peak = 0;

    Distance(std::span<const double> a, std::span<const double> b) {
        require(a.size() == b.size(), "{} values against {}", a.size(), b.size());
        for (size_t i = 0; i < a.size(); ++i) {
            if (std::isfinite(b[i])) peak = std::max(peak, std::abs(b[i]));
            if (a[i] == b[i]) continue;
            const double difference = std::abs(a[i] - b[i]);
            error = std::isfinite(difference) ? std::max(error, difference) : std::numeric_limits<double>::infinity();
            if (!std::isfinite(error)) return;
        }
    }
    double relative() const { return relative(error); }
    double relative(double x) const { return peak == 0 ? x : x / peak; }
};

}  // namespace

TilePlan tile_plan_of(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask,
                      const AttentionSize& size) {
    if (ctx.device == Device::cuda || (size.tile_rows == 0 && size.tile_columns == 0))
        return make_tile_plan(ctx, memory, mask);
    return make_tile_plan(mask, size.tile_rows ? size.tile_rows : 64, size.tile_columns ? size.tile_columns : 64);
}

bool AttentionErrors::within(const AttentionErrors& bounds) const {
    return out <= bounds.out && lse <= bounds.lse && dq <= bounds.dq && dk <= bounds.dk && dv <= bounds.dv;
}

Measurement measure_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size, int repeat) {
    Attention attention(ctx, mask, size);
    Measurement result{};
    result.forward_seconds = median_seconds(ctx, repeat, [&] { attention.forward(); });
    result.backward_seconds = median_seconds(ctx, repeat, [&] { attention.backward(false); });
    result.deterministic_seconds = result.backward_seconds;
    std::function<void()> busy = [] {};
    if (ctx.device == Device::cuda) {
        result.deterministic_seconds = median_seconds(ctx, repeat, [&] { attention.backward(true); });
        // The host reads the mask, which takes it longer than the GPU. In a step it is far enough ahead to hide that;
        // so it is here, behind some milliseconds of other work.
        const auto runs = static_cast<int>(std::clamp(5e-3 / std::max(result.forward_seconds, 1e-9), 1.0, 500.0));
        busy = [&attention, runs] {
            for (int i = 0; i < runs; ++i) attention.forward();
        };
    }
    result.plan_seconds = median_seconds(
        ctx, repeat, [&] { attention.make_plan(); }, busy);
    result.tile_share = attention.tile_share();
    const auto pairs = static_cast<double>(count_visible_pairs(mask));
    result.pair_share =
        pairs / static_cast<double>(std::max<int64_t>(mask.batch * mask.heads * mask.rows * mask.columns, 1));
    result.forward_flops = 4 * pairs * static_cast<double>(size.head_dim * (size.heads / mask.heads));
    result.backward_flops = 2.5 * result.forward_flops;
    return result;
}

AttentionCheck compare_with_dense(DenseAttention inputs, const ColumnMask& mask, DType dtype,
                                  std::span<const AttentionResults> runs) {
    DenseAttention exact = inputs;
    dense_attention(exact, mask);
    AttentionCheck check{};
    const auto worsen = [](double& error, const std::vector<double>& found, const std::vector<double>& oracle) {
        error = std::max(error, Distance(found, oracle).relative());
    };
    for (const AttentionResults& run : runs) {
        worsen(check.errors.out, run.out, exact.out);
        worsen(check.errors.lse, run.lse, exact.lse);
        worsen(check.errors.dq, run.dq, exact.dq);
        worsen(check.errors.dk, run.dk, exact.dk);
        worsen(check.errors.dv, run.dv, exact.dv);
    }
    if (dtype != DType::bf16) {
        const double bound = dtype == DType::f32 ? 2e-5 : 1e-12;
        check.bounds = {bound, bound, bound, bound, bound};
        return check;
    }
    inputs.round_bf16 = true;
    dense_attention(inputs, mask);
    // f32: operands of size r make scores of size r^2, which are off by some of their last bits, and probabilities by
    // as much of themselves. dk and dv add up over the rows.
    double r = 0;
    for (const auto* operand : {&inputs.q, &inputs.k, &inputs.v, &inputs.dout})
        for (const double x : *operand) r = std::max(r, std::abs(x));
    const double share = 0x1p-21 * (1 + r * r),
                 rows = std::sqrt(static_cast<double>(mask.rows * (inputs.heads / inputs.kv_heads)));
    const auto bound = [](const std::vector<double>& yardstick, const std::vector<double>& oracle, double floor) {
        const Distance distance(yardstick, oracle);
        return 2 * distance.relative() + distance.relative(floor);
    };
    check.bounds = {bound(inputs.out, exact.out, share * r),
                    1e-5 * std::max(1.0, Distance(exact.lse, exact.lse).relative(1)),
                    bound(inputs.dq, exact.dq, share * r * r * r), bound(inputs.dk, exact.dk, share * r * r * r * rows),
                    bound(inputs.dv, exact.dv, share * r * rows)};
    return check;
}

AttentionCheck check_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size) {
    const Attention attention(ctx, mask, size);
    const Operands& x = attention.operands();
    const auto values = [&](const Tensor& t) { return read_values(ctx, t); };
    const auto run = [&](bool deterministic) {
        // Whatever is not written stays NaN.
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
