#include "train/model/attention_masks.h"

#include <algorithm>

namespace colonnade {

AttentionMasks AttentionMasks::lay_out(Arena& arena, const ModelConfig& config, int64_t packs, int64_t length) {
    return lay_out(arena, config, packs, length, length);
}

AttentionMasks AttentionMasks::lay_out(Arena& arena, const ModelConfig& config, int64_t packs, int64_t rows,
                                       int64_t columns) {
    AttentionMasks masks;
    for (const int64_t window : config.windows) {
        const auto known = std::ranges::find(masks.windows_, window);
        masks.index_.push_back(static_cast<size_t>(known - masks.windows_.begin()));
        if (known != masks.windows_.end()) continue;
        masks.windows_.push_back(window);
        // Only a window over rows of their own keys is of positions.
        const int64_t positions = window > 0 && rows == columns ? packs : 0;
        masks.plans_.push_back(GpuTilePlan::lay_out(arena, packs, rows, columns, positions));
    }
    return masks;
}

void AttentionMasks::fill(const Context& ctx, const ColumnMask& mask, std::span<const int32_t> positions) {
    entries_.clear();
    for (size_t i = 0; i < windows_.size(); ++i) {
        const int64_t window = windows_[i];
        ColumnMask seen = window == 0         ? mask
                          : positions.empty() ? mask.with_sliding_window(window)
                                              : mask.with_sliding_window(window, positions);
        TilePlan plan = make_tile_plan(ctx, plans_[i], seen);
        entries_.push_back({std::move(seen), std::move(plan)});
    }
}

}  // namespace colonnade
