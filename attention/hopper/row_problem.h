#pragma once
// RowProblem of a call of flashmask_forward() or flashmask_backward().

#include <algorithm>

#include "attention/flashmask.h"
#include "attention/hopper/row_feed.cuh"

namespace colonnade::hopper {

/// L is the kernel's RowLayout. The kernel's launcher sets `lse` or `statistics`. `next`: see Work.
template <typename L, typename Args>
RowProblem row_problem(const Args& args, unsigned* next) {
    const auto size = [](const Tensor& t, int dim) { return static_cast<int>(t.size(dim)); };
    const GpuTilePlan& plan = args.plan.gpu;
    const int batch = size(args.q, 0), rows = size(args.q, 1), heads = size(args.q, 2), head_dim = size(args.q, 3),
              columns = size(args.k, 1), kv_heads = size(args.k, 2), mask_heads = static_cast<int>(args.mask.heads);
    const int row_groups = (rows + L::tile_rows - 1) / L::tile_rows, group = heads / kv_heads,
              sharing = heads / mask_heads;
    // The keys and values of a section get half of the L2 cache.
    const int64_t kept = std::max<int64_t>(1, (int64_t{32} << 20) / (int64_t{4} * batch * columns * head_dim));
    const Tensor& order = L::warpgroups == 3 ? plan.hopper.row_triple_order : plan.row_order;
    return {.work = {.active = reinterpret_cast<const uint32_t*>(plan.row_active.as<int32_t>()),
                     .partial = reinterpret_cast<const uint32_t*>(plan.row_partial.as<int32_t>()),
                     .order = order.as<int32_t>(),
                     .next = next,
                     .row_blocks = size(plan.row_active, 1),
                     .words = size(plan.row_active, 2),
                     .row_groups = row_groups,
                     .entries = batch * mask_heads * row_groups,
                     .mask_heads = mask_heads,
                     .sharing = sharing,
                     .section = static_cast<int>(std::min<int64_t>(kept * group, sharing)),
                     .items = static_cast<unsigned>(batch * heads * row_groups)},
            .bounds = reinterpret_cast<const int4*>(plan.bounds.as<int32_t>()),
            .rows = rows,
            .columns = columns,
            .heads = heads,
            .group = group,
            .padded_columns = size(plan.bounds, 1),
            .causal = args.mask.causal,
            .scale = static_cast<float>(args.scale),
            .positions = args.mask.position_window > 0 ? plan.positions.as<int32_t>() : nullptr,
            .window = args.mask.position_window};
}

}  // namespace colonnade::hopper
