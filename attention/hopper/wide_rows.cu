// dQ of wide heads on Hopper: see wide.cuh.
//
// The walk is that of the forward pass (row_feed.cuh): an item is 128 query rows of one head, a tile 64 keys. dQ stays
// in registers and leaves through the buffer of the queries. Two warpgroups have 64 rows each:
//
//     S = Q K^T, dP = dO V^T    [64 rows, 64 keys], both operands K-major
//     dQ += dS K                [64 rows, head_dim], A from registers, B MN-major

#include <algorithm>

#include "attention/hopper/key_consumer.cuh"
#include "attention/hopper/row_consumer.cuh"
#include "attention/hopper/row_problem.h"
#include "attention/hopper/wide.cuh"
#include "engine/device/gpu.cuh"
#include "engine/device/hopper/tensor_map.h"

namespace colonnade::hopper {

/// One buffer for V is enough, because dP is complete before dS and dQ.
using WideRowLayout = RowLayout<RowShape{.head_dim = wide_head_dim,
                                         .warpgroups = 2,
                                         .tile_columns = 64,
                                         .q_places = 1,
                                         .stages = 2,
                                         .v_stages = 1,
                                         .gradient = true,
                                         .feeder_registers = 40,
                                         .consumer_registers = 232}>;

namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// lse * log2(e) and delta of the thread's two rows, for dS; INFINITY and 0 for rows that do not exist.
struct RowStatistics {
    float lse[2] = {INFINITY, INFINITY}, delta[2] = {0, 0};

    __device__ RowStatistics(const RowProblem& p, const Item& item, int block, int row) {
        if (block >= p.work.row_blocks) return;
        const int64_t at = (static_cast<int64_t>(item.batch) * p.heads + item.head) * p.work.row_blocks + block;
        const float* from = p.statistics + at * statistics_of_block + row;
#pragma unroll
        for (int r = 0; r < 2; ++r) lse[r] = __ldg(from + 8 * r), delta[r] = __ldg(from + block_rows + 8 * r);
    }
};

/// A computing warpgroup of the dQ pass.
struct WideRowConsumer : RowConsumer<WideRowLayout> {
    const float scale;  ///< times log2(e)
    float dq[wide_head_dim / 2];

    __device__ explicit WideRowConsumer(const RowCta<L>& of) : RowConsumer(of), scale(of.problem.scale * 1.44269504f) {}

    __device__ __forceinline__ void run() {
        const RowProblem& problem = cta.problem;
        uint32_t tiles = 0;
        for (uint32_t n = 0;; ++n) {
            const Item item = cta.read_item(n);
            if (item.head < 0) return;
            const RowStatistics rows(problem, item, item.first_row / block_rows + warpgroup,
                                     16 * warp + lane_anew() / 4);
            const uint32_t end = tiles + static_cast<uint32_t>(uniform(item.tiles));
#pragma unroll
            for (float& x : dq) x = 0;
            const uint32_t own_rows = wait_queries(n);
            for (; tiles != end; ++tiles) {
                const int mask = wait_keys(tiles);
                turns.take();
                if (mask >= closed) {
                    skip_tile(tiles);
                    continue;
                }
                add_tile(rows, own_rows, tiles, mask);
            }
            const float factor[2] = {problem.scale, problem.scale};
            send(dq, factor, own_rows, n);
        }
    }

  private:
    /// dQ += dS K of tile t.
    __device__ __forceinline__ void add_tile(const RowStatistics& rows, uint32_t own_rows, uint32_t t, int mask) {
        float s[32], dp[32];
        uint32_t ds[16];
        begin_products();
        multiply_rows<wide_head_dim>(s, own_rows, L::q_slab_bytes, keys(t), L::slab_bytes);
        commit_products();
        wait_values(t);
        begin_products();
        multiply_rows<wide_head_dim>(dp, own_rows + (L::dout - L::q), L::q_slab_bytes, values(t), L::slab_bytes);
        commit_products();
        turns.pass();
        uint32_t hidden[1];
        read_hidden(hidden, t, mask);
        wait_products<1>();
        hold(s);
        hide_scores(s, hidden);
#pragma unroll
        for (int i = 0; i < 32; ++i) s[i] = exp2_fast(fmaf(s[i], scale, -rows.lse[i / 2 % 2]));
        // The values arrived long ago: this wait is here because its branches keep the exponentials before
        // wait_products, where they overlap with dP.
        hold(s);
        wait_values(t);
        wait_products<0>();
        hold(dp);
        release_values(t);
#pragma unroll
        for (int i = 0; i < 32; ++i) dp[i] = s[i] * (dp[i] - rows.delta[i / 2 % 2]);
        pack(ds, dp);
        hold(dq), hold(ds);
        begin_products();
        multiply_columns<wide_head_dim>(dq, ds, keys(t));
        commit_products();
        wait_products<0>();
        hold(dq), hold(ds);
        release_keys(t);
    }
};

#endif

__global__ void __launch_bounds__(WideRowLayout::threads, 1)
    wide_rows(const __grid_constant__ RowProblem problem, const __grid_constant__ RowMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    // Through uniform(), so that ptxas keeps the address. It would otherwise compute it again all over the loop over
    // tiles: 24 of 514 instructions.
    const uint32_t address = static_cast<uint32_t>(uniform(static_cast<int>(shared_address(memory))));
    const RowCta<WideRowLayout> cta{problem, maps, memory, address};
    cta.run<WideRowConsumer>();
#endif
}

}  // namespace

void wide_query_gradients(const Context& ctx, const FlashMaskBackward& args, const BackwardProblem& problem) {
    using L = WideRowLayout;
    RowProblem rows = row_problem<L>(args, problem.scratch.next + 2);
    rows.statistics = problem.scratch.statistics;
    const RowMaps maps{.q = make_tensor_map(args.q, L::tile_rows),
                       .k = make_tensor_map(args.k, L::tile_columns),
                       .v = make_tensor_map(args.v, L::tile_columns),
                       .out = make_tensor_map(args.dq, 64),
                       .dout = make_tensor_map(args.dout, L::tile_rows)};
    check_cuda(cudaFuncSetAttribute(wide_rows, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes),
               "flashmask backward");
    const unsigned grid = std::min(rows.work.items, static_cast<unsigned>(ctx.gpu->multiprocessors()));
    wide_rows<<<grid, L::threads, L::bytes, stream_of(ctx)>>>(rows, maps);
    check_launch("flashmask backward");
}

}  // namespace colonnade::hopper
