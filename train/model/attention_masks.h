#pragma once
// AttentionMasks: the column masks of a batch as the layers of a model need them, one per distinct sliding window, each
// with its tile plan.

#include "attention/tile_plan.h"
#include "train/model/model_config.h"

namespace colonnade {

class AttentionMasks {
  public:
    struct Entry {
        ColumnMask mask;
        TilePlan plan;
    };

    AttentionMasks() = default;
    /// Memory for batches of this size. Only plans on a GPU take any: on the CPU any arena will do.
    static AttentionMasks lay_out(Arena& arena, const ModelConfig& config, int64_t packs, int64_t length);
    /// The same for `rows` queries that see more keys than their own.
    static AttentionMasks lay_out(Arena& arena, const ModelConfig& config, int64_t packs, int64_t rows,
                                  int64_t columns);

    /// Makes the masks of a batch. `positions`: [batch, rows] of the mask, which sliding windows count by; if empty,
    /// they count rows.
    void fill(const Context& ctx, const ColumnMask& mask, std::span<const int32_t> positions = {});

    const Entry& of_layer(int64_t layer) const { return entries_[index_[layer]]; }

  private:
    std::vector<int64_t> windows_;    ///< distinct ones, in order of first use; 0: no window
    std::vector<size_t> index_;       ///< [layers] into windows_
    std::vector<GpuTilePlan> plans_;  ///< memory of a plan for every window
    std::vector<Entry> entries_;      ///< for every window
};

}  // namespace colonnade
