// dQ of wide heads on Hopper: see wide.cuh.
//
// Forward's walk (row_feed.cuh): an item is 128 query rows of one head, a tile 64 keys; dQ stays in registers and leaves
// through the place of the queries. Two warpgroups have 64 rows each:
//
//     S = Q K^T, dP = dO V^T    [64 rows, 64 keys], both operands K-major
//     dQ += dS K                [64 rows, head_dim], A from registers, B MN-major

#include <algorithm>

#include "attention/hopper/backward_scores.cuh"
#include "attention/hopper/row_feed.cuh"
#include "attention/hopper/row_problem.h"
#include "attention/hopper/row_scores.cuh"
#include "attention/hopper/wide.cuh"
#include "engine/device/gpu.cuh"
#include "engine/device/hopper/tensor_map.h"

namespace colonnade::hopper {

struct WideRowMaps {
    CUtensorMap q, k, v, dout, out;
};

/// Shared memory: bytes from a 1024-byte boundary on, where dynamic shared memory begins. dP is there before dS and dQ: one
/// place for V will do.
struct WideRowLayout {
    using Maps = WideRowMaps;
    static constexpr bool gradient = true;
    static constexpr int warpgroups = 2, tile_rows = 64 * warpgroups, tile_columns = 64, threads = 384;
    static constexpr int feeder_registers = 40, consumer_registers = 232;
    static_assert(128 * (feeder_registers + warpgroups * consumer_registers) <= 65536);
    static constexpr int stages = 2, v_stages = 1, slabs = wide_head_dim / 64, q_places = 1,
                         q_slab_bytes = tile_rows * 128, slab_bytes = tile_columns * 128,
                         q_bytes = slabs * q_slab_bytes, tile_bytes = slabs * slab_bytes,
                         words_of_warpgroup = mask_words(tile_columns),
                         words_bytes = warpgroups * words_of_warpgroup * 4;
    static constexpr int q = 0, dout = q + q_bytes, k = dout + q_bytes, v = k + stages * tile_bytes,
                         words = v + v_stages * tile_bytes, masks = words + stages * words_bytes,
                         items = masks + stages * 4, barriers = items + 2 * 32;
    // Barriers, indices
    static constexpr int q_full = 0, q_empty = q_places, out_full = 2 * q_places,
                         item_full = out_full + q_places * warpgroups, item_empty = item_full + 2,
                         k_full = item_empty + 2, k_empty = k_full + stages, v_full = k_empty + stages,
                         v_empty = v_full + v_stages, barrier_count = v_empty + v_stages;
    static constexpr int bytes = barriers + 8 * barrier_count;
    static_assert(bytes <= 232448 && sizeof(Item) <= 32 && items % 8 == 0 && barriers % 8 == 0);
};

namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using Cta = RowCta<WideRowLayout>;

/// What forward left of the thread's two rows, for dS.
struct RowStatistics {
    float lse[2] = {INFINITY, INFINITY}, delta[2] = {0, 0};  // of rows that do not exist

    __device__ RowStatistics(const RowProblem& p, const Item& item, int block, int row) {
        if (block >= p.work.row_blocks) return;
        const int64_t at = (static_cast<int64_t>(item.batch) * p.heads + item.head) * p.work.row_blocks + block;
        const float* from = p.statistics + at * statistics_of_block + row;
#pragma unroll
        for (int r = 0; r < 2; ++r) lse[r] = __ldg(from + 8 * r), delta[r] = __ldg(from + block_rows + 8 * r);
    }
};

__device__ __forceinline__ void consume(const Cta& cta) {
    using L = WideRowLayout;
    const RowProblem& problem = cta.problem;
    const int warpgroup = uniform(static_cast<int>(threadIdx.x / 128)) - 1,
              warp = uniform(static_cast<int>(threadIdx.x / 32 % 4));
    const float scale = problem.scale * 1.44269504f;
    const auto release = [&](int empty) { arrive_as_warp(cta.barrier(empty), threadIdx.x % 32); };

    const Turns turns(warpgroup);
    float dq[wide_head_dim / 2];
    uint32_t tiles = 0;
    for (uint32_t n = 0;; ++n) {
        const Item item = cta.read_item(n);
        if (item.head < 0) return;
        const RowStatistics rows(problem, item, item.first_row / block_rows + warpgroup, 16 * warp + lane_anew() / 4);
        const uint32_t end = tiles + static_cast<uint32_t>(uniform(item.tiles));
#pragma unroll
        for (float& x : dq) x = 0;
        wait(cta.barrier(L::q_full), n & 1);
        const uint32_t own_rows = warpgroup * 64 * 128, q = cta.queries(n) + own_rows,
                       dout = cta.address + L::dout + own_rows;
        for (; tiles != end; ++tiles) {
            const uint32_t stage = tiles % L::stages;
            const int k_empty = L::k_empty + static_cast<int>(stage);
            const auto wait_values = [&] { wait(cta.barrier(L::v_full), tiles & 1); };
            wait(cta.barrier(L::k_full + stage), tiles / L::stages & 1);
            const int mask = uniform(*cta.mask(stage)) >> 2 * warpgroup & 3;
            turns.take();
            if (mask >= closed) {
                turns.pass();
                wait_values();
                release(k_empty);
                release(L::v_empty);
                continue;
            }
            float s[32], dp[32];
            uint32_t ds[16];
            begin_products();
            multiply_rows<wide_head_dim>(s, q, L::q_slab_bytes, cta.keys(stage), L::slab_bytes);
            commit_products();
            wait_values();
            begin_products();
            multiply_rows<wide_head_dim>(dp, dout, L::q_slab_bytes, cta.values(0), L::slab_bytes);
            commit_products();
            turns.pass();
            uint32_t hidden[1] = {0};
            if (mask == by_words) read_mask(hidden, cta.words(stage, warpgroup), warp);
            wait_products<1>();
            hold(s);
            hide_scores(s, hidden);
#pragma unroll
            for (int i = 0; i < 32; ++i) s[i] = exp2_fast(fmaf(s[i], scale, -rows.lse[i / 2 % 2]));
            // In long since: its branches keep the exponentials on this side of wait_products, beside dP.
            hold(s);
            wait_values();
            wait_products<0>();
            hold(dp);
            release(L::v_empty);
#pragma unroll
            for (int i = 0; i < 32; ++i) dp[i] = s[i] * (dp[i] - rows.delta[i / 2 % 2]);
            pack(ds, dp);
            hold(dq), hold(ds);
            begin_products();
            multiply_columns<wide_head_dim>(dq, ds, cta.keys(stage));
            commit_products();
            wait_products<0>();
            hold(dq), hold(ds);
            release(k_empty);
        }
        // Over the warpgroup's own queries, which nobody reads any more.
        sync_named(own_named + warpgroup, 128);
        const float factor[2] = {problem.scale, problem.scale};
        write_outputs(dq, factor, q, L::q_slab_bytes, warp, lane_anew());
        fence_async();
        release(L::out_full + warpgroup);
    }
}

#endif

__global__ void __launch_bounds__(WideRowLayout::threads, 1)
    wide_rows(const __grid_constant__ RowProblem problem, const __grid_constant__ WideRowMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char rows_memory[];
    const Cta cta{problem, maps, rows_memory, shared_address(rows_memory)};
    cta.run(consume);
#endif
}

}  // namespace

void wide_query_gradients(const Context& ctx, const FlashMaskBackward& args, const BackwardProblem& problem) {
    using L = WideRowLayout;
    RowProblem rows = row_problem<L>(args, problem.next + 2);
    rows.statistics = problem.statistics;
    const WideRowMaps maps{make_tensor_map(args.q, L::tile_rows), make_tensor_map(args.k, L::tile_columns),
                           make_tensor_map(args.v, L::tile_columns), make_tensor_map(args.dout, L::tile_rows),
                           make_tensor_map(args.dq, 64)};
    check_cuda(cudaFuncSetAttribute(wide_rows, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes),
               "flashmask backward");
    const unsigned grid = std::min(rows.work.items, static_cast<unsigned>(ctx.gpu->multiprocessors()));
    wide_rows<<<grid, L::threads, L::bytes, stream_of(ctx)>>>(rows, maps);
    check_launch("flashmask backward");
}

}  // namespace colonnade::hopper
