#pragma once
// One FlashMask call on random data, on either device: for tests and benchmarks.

#include "attention/dense.h"
#include "attention/flashmask.h"

namespace colonnade {

struct AttentionSize {
    int64_t heads = 8, kv_heads = 8, head_dim = 64;
    DType dtype = DType::f32;  ///< f32 or f64 on the CPU, bf16 on a GPU
    /// Tiles of the CPU's plan. If both are 0 make_tile_plan() chooses; if one is 0 it is 64.
    int64_t tile_rows = 0, tile_columns = 0;
    double range = 2;  ///< operands are uniform in [-range, range); logits grow with its square
};

/// The plan of a call of this size on the context's device.
TilePlan tile_plan_of(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask, const AttentionSize& size);

/// Operands, results and the plan of one call. `mask` must outlive it.
class RandomAttention {
  public:
    struct Operands {
        Tensor q, k, v, dout, out, lse, dq, dk, dv, scratch;
        GpuTilePlan plan;
    };

    RandomAttention(const Context& ctx, const ColumnMask& mask, const AttentionSize& size);

    void make_plan();
    void forward() const;
    void backward(bool deterministic) const;

    const Operands& operands() const { return x_; }
    double scale() const;
    /// Active tiles over all tiles; waits for a GPU.
    double active_share() const;

  private:
    void draw(const Tensor& tensor, uint64_t stream) const;

    Context ctx_;
    const ColumnMask& mask_;
    AttentionSize size_;
    Arena arena_;
    Operands x_;
    TilePlan plan_;
};

/// Compares forward and backward on random data with the oracle; on a GPU backward both deterministic and not.
AttentionCheck check_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size);

}  // namespace colonnade
