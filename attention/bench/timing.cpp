#include "attention/bench/timing.h"

#include "engine/device/gpu_timer.h"
#include "engine/device/timing.h"

namespace colonnade {
namespace {

/// Median of `repeat` timed runs of `body` after an untimed one. On a GPU `before` precedes each and is not timed.
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
        seconds.push_back(seconds_since(start));
    }
    return median(std::move(seconds));
}

}  // namespace

AttentionTimes time_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size, int repeat) {
    RandomAttention attention(ctx, mask, size);
    AttentionTimes result{};
    result.forward_seconds = median_seconds(ctx, repeat, [&] { attention.forward(); });
    result.backward_seconds = median_seconds(ctx, repeat, [&] { attention.backward(false); });
    result.deterministic_seconds = result.backward_seconds;
    std::function<void()> busy = [] {};
    if (ctx.device == Device::cuda) {
        result.deterministic_seconds = median_seconds(ctx, repeat, [&] { attention.backward(true); });
        // The host takes longer to read the mask than the GPU to build the plan. In a training step the host is far
        // enough ahead to hide that. Here some milliseconds of other work put it ahead.
        const auto runs = static_cast<int>(std::clamp(5e-3 / std::max(result.forward_seconds, 1e-9), 1.0, 500.0));
        busy = [&attention, runs] {
            for (int i = 0; i < runs; ++i) attention.forward();
        };
    }
    result.plan_seconds = median_seconds(
        ctx, repeat, [&] { attention.make_plan(); }, busy);
    result.active_tiles = attention.active_share();
    const auto pairs = static_cast<double>(count_visible_pairs(mask));
    result.visible_pairs =
        pairs / static_cast<double>(std::max<int64_t>(mask.batch * mask.heads * mask.rows * mask.columns, 1));
    const int64_t heads_per_mask = size.heads / mask.heads;
    result.forward_flops = 4 * pairs * static_cast<double>(size.head_dim * heads_per_mask);
    result.backward_flops = 2.5 * result.forward_flops;
    return result;
}

}  // namespace colonnade
