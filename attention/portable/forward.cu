// FlashMask forward for any GPU from sm_80 on: the loop of FlashAttention-2 (arXiv 2307.08691, algorithm 1) over the
// active tiles of the plan in ascending order. A CTA computes 128 query rows of one head (64 at head dim 256). Each of
// its four warps works on its own rows and synchronizes with the others only when tiles of keys and values are
// replaced. A tile is copied if it is active for any of the CTA's rows; a warp computes and masks it by its class for
// the warp's block of 64 rows.

#include "attention/portable/forward.cuh"

#include "attention/cuda_kernels.h"
#include "attention/portable/once_per_device.cuh"
#include "engine/device/gpu.cuh"

namespace colonnade::cuda {
namespace {

using namespace portable;
using namespace portable::forward;

/// Shared memory of a CTA: queries, stages of keys, stages of values, bounds of two tiles, Place.
template <int head_dim, int stages>
struct Memory {
    using S = Shape<head_dim>;
    using Walk = TileWalk<head_dim>;
    const Problem& p;
    char* start;

    __device__ char* values_at() const { return start + S::q_bytes + stages * S::tile_bytes; }
    __device__ char* bounds_at() const { return values_at() + stages * S::tile_bytes; }
    __device__ Place& place() const { return *reinterpret_cast<Place*>(bounds_at() + 2 * S::bounds_bytes); }
    __device__ char* own_queries() const { return start + warp_index() * S::warp_bytes; }
    __device__ uint32_t keys(int stage) const {
        return shared_address(start) + S::q_bytes + stage % stages * S::tile_bytes;
    }
    __device__ uint32_t values(int stage) const { return shared_address(values_at()) + stage % stages * S::tile_bytes; }
    __device__ const int4* bounds(int stage) const {
        return reinterpret_cast<const int4*>(bounds_at() + stage * S::bounds_bytes);
    }

    __device__ __forceinline__ void copy_keys(const Place& from, int found, int stage) const {
        const int column = Walk::first_column(found);
        copy_rows<head_dim, tile>(keys(stage), from.k, p.k.token, column, p.columns);
        if ((found & Walk::masked) && thread_index() < tile)
            copy_async(shared_address(bounds_at() + stage * S::bounds_bytes + thread_index() * sizeof(int4)),
                       from.bounds + column + thread_index());
    }
    __device__ __forceinline__ void copy_values(const Place& from, int found, int stage) const {
        copy_rows<head_dim, tile>(values(stage), from.v, p.v.token, Walk::first_column(found), p.columns);
    }
    /// Copies the queries and the first tile.
    __device__ __forceinline__ void copy_first(const Work<head_dim>& work, int found) const {
        const int kv_head = work.h / p.group;
        const Place here{p.k.of(work.b, kv_head), p.v.of(work.b, kv_head), p.bounds + work.sheet * p.padded_columns,
                         work.block * tile};
        if (thread_index() == 0) place() = here;
        copy_rows<head_dim, S::rows>(shared_address(start), p.q.of(work.b, work.h), p.q.token, here.first_row, p.rows);
        copy_keys(here, found, 0);
        if (stages == 2) copy_values(here, found, 0);
        commit_copies();
    }
};

/// Writes the warp's rows. The work is looked up again, because the loop has no registers to keep it in.
template <int head_dim>
__device__ __forceinline__ void write_output(const Problem& p, const Sums<Shape<head_dim>::row_tiles, head_dim>& o,
                                             const Softmax<Shape<head_dim>::row_tiles>& softmax, char* own_queries) {
    using S = Shape<head_dim>;
    const Work<head_dim> done(p);
    const int row = done.block * tile + warp_index() * S::warp_rows;
    write_rows<head_dim, S::row_tiles>(
        o, softmax, own_queries, p.out.of(done.b, done.h) + static_cast<int64_t>(row) * p.out.token, p.out.token,
        p.lse + (static_cast<int64_t>(done.b) * p.heads + done.h) * p.rows + row, p.rows - row);
}

/// Two stages: the next tile is copied while this one is computed, and warps meet once per tile. One stage: values are
/// copied while the scores are computed, the next keys after that, and warps meet twice.
template <int head_dim, int stages>
__global__ void __launch_bounds__(threads, Shape<head_dim>::min_ctas(stages))
    portable_forward_kernel(const __grid_constant__ Problem p) {
    using S = Shape<head_dim>;
    using Walk = TileWalk<head_dim>;
    extern __shared__ __align__(1024) char start[];
    const Memory<head_dim, stages> memory{p, start};
    const Work<head_dim> work(p);
    if (work.block >= p.row_blocks) return;
    Walk walk(p);
    int found = walk.next(p);
    if (found >= 0) memory.copy_first(work, found);
    const uint32_t offset = fragment_offset<head_dim>();
    Sums<S::row_tiles, head_dim> o = {};
    Softmax<S::row_tiles> softmax;
    for (int stage = 0; found >= 0; stage ^= 1) {
        const int current = found;
        wait_copies<0>();
        __syncthreads();  // all threads' copies have arrived, and all warps are done with the previous tile
        if constexpr (stages == 2) {
            found = walk.next(p);
            if (found >= 0)
                memory.copy_keys(memory.place(), found, stage ^ 1),
                    memory.copy_values(memory.place(), found, stage ^ 1);
            commit_copies();
            if (!(current & Walk::mine)) continue;
        } else {
            memory.copy_values(memory.place(), current, 0);
            commit_copies();
        }
        // With one stage the scores are computed even if the tile is not this warp's: a branch around them takes more
        // registers than there are, and the other warps have to be waited for anyway.
        Scores<S::row_tiles> s;
        multiply_queries<head_dim, S::row_tiles>(s, shared_address(memory.own_queries()), memory.keys(stage), offset);
        if constexpr (stages == 1) {
            found = walk.next(p);
            wait_copies<0>();
            __syncthreads();  // the values have arrived, and all warps are done with the keys
            if (found >= 0) memory.copy_keys(memory.place(), found, stage ^ 1);
            commit_copies();
            if (!(current & Walk::mine)) continue;
        }
        if (current & Walk::mine_masked) {
            const int row = memory.place().first_row + warp_index() * S::warp_rows + lane_index() / 4,
                      column = Walk::first_column(current);
            hide<S::row_tiles>(s, memory.bounds(stage), row, p.causal ? column - (p.columns - p.rows) : INT_MIN);
            if (p.positions)
                hide_past_window<true>(s, p.positions + Work<head_dim>(p).b * p.padded_columns, p.window, row,
                                       column + lane_index() % 4 * 2);
        }
        step_softmax<head_dim, S::row_tiles>(s, softmax, o, p.scale);
        multiply_values<head_dim, S::row_tiles>(o, s, memory.values(stage), offset);
    }
    write_output<head_dim>(p, o, softmax, memory.own_queries());
}

/// Prepares the kernel for the current device and returns the number of its CTAs that a multiprocessor runs at a time.
template <int head_dim, int stages>
int prepare() {
    constexpr int bytes = shared_bytes<head_dim>(stages);
    const auto kernel = portable_forward_kernel<head_dim, stages>;
    int device = 0, limit = 0, ctas = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
               "cudaDeviceGetAttribute");
    if (bytes > limit) return 0;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               "cudaFuncSetAttribute");
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                    static_cast<int>(cudaSharedmemCarveoutMaxShared)),
               "cudaFuncSetAttribute");
    check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&ctas, kernel, threads, bytes),
               "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return ctas;
}

template <int head_dim>
void launch(const Problem& problem, int64_t entries, cudaStream_t stream) {
    const int64_t grid = entries * Shape<head_dim>::ctas_per_entry;
    require(grid <= INT_MAX, "flashmask: {} blocks of query rows", grid);
    // Two stages, unless one stage lets more CTAs share a multiprocessor, which hide each other's waits better.
    const int stages = once_per_device([] { return prepare<head_dim, 2>() >= prepare<head_dim, 1>() ? 2 : 1; });
    const auto blocks = static_cast<unsigned>(grid);
    if (stages == 2)
        portable_forward_kernel<head_dim, 2><<<blocks, threads, shared_bytes<head_dim>(2), stream>>>(problem);
    else
        portable_forward_kernel<head_dim, 1><<<blocks, threads, shared_bytes<head_dim>(1), stream>>>(problem);
    check_launch("flashmask_forward");
}

Heads heads_of(const Tensor& t) {
    require(t.stride[1] <= INT_MAX, "flashmask: a stride of {} elements between tokens does not fit 32 bits",
            t.stride[1]);
    return {
        .data = as_device<bf16>(t), .batch = t.stride[0], .head = t.stride[2], .token = static_cast<int>(t.stride[1])};
}

const uint32_t* words_of(const Tensor& map) {
    require(map.numel() <= INT_MAX, "flashmask: a bit map of {} words", map.numel());
    return reinterpret_cast<const uint32_t*>(as_device<int32_t>(map));
}

}  // namespace

void portable_forward(const Context& ctx, const FlashMaskForward& args) {
    const ColumnMask& mask = args.mask;
    const GpuTilePlan& plan = args.plan.gpu;
    const int64_t heads = args.q.size(2), sharing = heads / mask.heads, entries = plan.row_order.numel() * sharing;
    if (entries == 0) return;
    // The kernel takes the largest product for the largest score, which needs scale > 0.
    require(args.scale > 0, "flashmask: scale is {}, expected > 0", args.scale);
    constexpr double log2_e = 1.4426950408889634;
    const Problem problem{.q = heads_of(args.q),
                          .k = heads_of(args.k),
                          .v = heads_of(args.v),
                          .out = heads_of(args.out),
                          .lse = as_device<float>(args.lse),
                          .bounds = reinterpret_cast<const int4*>(as_device<int32_t>(plan.bounds)),
                          .active = words_of(plan.row_active),
                          .partial = words_of(plan.row_partial),
                          .order = as_device<int32_t>(plan.row_order),
                          .padded_columns = plan.bounds.size(1),
                          .rows = static_cast<int>(mask.rows),
                          .columns = static_cast<int>(mask.columns),
                          .heads = static_cast<int>(heads),
                          .group = static_cast<int>(heads / args.k.size(2)),
                          .mask_heads = static_cast<int>(mask.heads),
                          .sharing = static_cast<int>(sharing),
                          .row_blocks = static_cast<int>(plan.row_active.size(1)),
                          .words = static_cast<int>(plan.row_active.size(2)),
                          .causal = mask.causal,
                          .scale = static_cast<float>(args.scale * log2_e),
                          .positions = mask.position_window > 0 ? as_device<int32_t>(plan.positions) : nullptr,
                          .window = mask.position_window};
    const cudaStream_t stream = stream_of(ctx);
    switch (args.q.size(3)) {
        case 64:
            return launch<64>(problem, entries, stream);
        case 96:
            return launch<96>(problem, entries, stream);
        case 128:
            return launch<128>(problem, entries, stream);
        case 256:
            return launch<256>(problem, entries, stream);
        default:
            fail(Exit::internal, "flashmask: no GPU kernel for head_dim {}", args.q.size(3));
    }
}

}  // namespace colonnade::cuda
