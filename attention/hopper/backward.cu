// FlashMask backward on Hopper: the loop of FlashAttention-3 (arXiv 2407.08608, hopper/mainloop_bwd_sm90_tma_gmma_ws)
// over the active tiles of the plan. Three launches: row statistics; the main kernel, which gives dK, dV and sums of dQ;
// and dQ's rounding (both in backward_rows.cu). Wide heads (head_dim 256) have other main kernels (wide.cuh).
//
// A CTA is persistent, one to a multiprocessor. An item is 128 keys of one key/value head; dK and dV stay in registers
// over the active blocks of rows of all query heads that share it. Of the first warpgroup a warp takes items from a counter
// and brings their tiles by TMA, two add sums of dQ to global memory. The two other warpgroups have 64 keys each, the rows of
// their products, so that P^T and dS^T are A operands as they come:
//
//     S^T = K Q^T,  dP^T = V dO^T   [64 keys, 64 rows], both operands K-major
//     dV += P^T dO, dK += dS^T Q    [64 keys, head_dim], A from registers, B MN-major
//     dQ = dS K                     [64 rows, 64 columns] over all 128 keys, both operands MN-major
//
// dS goes through shared memory, [keys][rows] as it comes. Of a step with one block of 64 rows (head_dim 128) the
// warpgroups share dQ by columns, of a step with two blocks (head_dim 64) by rows. A tile of 64 x 64 that is empty costs
// no product anywhere: neither its own nor its part of dQ.
//
// Deterministic: dK and dV always are, the order of a CTA's own blocks being fixed. Sums of dQ are where every block of
// them has a ticket: an item adds when those before it in the schedule, of the ones active there, have added. Items are
// taken in that order, so that the earliest unfinished one never waits.

#include <algorithm>

#include "attention/hopper/backward_feed.cuh"
#include "attention/hopper/backward_rows.cuh"
#include "attention/hopper/backward_scores.cuh"
#include "attention/hopper/hopper.h"
#include "attention/hopper/wide.cuh"
#include "engine/device/gpu.cuh"
#include "engine/device/hopper/tensor_map.h"

namespace colonnade::cuda {
namespace {

using namespace hopper;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Named barriers: both warpgroups have written dS; both have done with an item's keys; 3 and 4, a warpgroup alone.
constexpr int scores_written = 1, keys_read = 2, own_warpgroup = 3;

template <int head_dim>
struct Consumer {
    using L = BackwardLayout<head_dim>;
    const BackwardCta<head_dim>& cta;
    int warpgroup, warp, lane;

    __device__ void release(int barrier) const { arrive_as_warp(cta.barrier(barrier), static_cast<unsigned>(lane)); }
    /// This warpgroup's 64 keys in the first slab of K or V.
    __device__ uint32_t own_keys(int tile) const { return cta.address + tile + warpgroup * 64 * 128; }

    /// The warpgroup's dK and dV to shared memory and on their way.
    __device__ void write(const float (&dk)[head_dim / 2], const float (&dv)[head_dim / 2],
                          const BackwardItem& item) const {
        const int own_row = 16 * warp + lane % 16;
        const float scale = cta.problem.scale;
        sync_named(keys_read, 256);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            uint32_t r[16];
#pragma unroll
            for (int i = 0; i < 16; ++i) r[i] = pack_bf16(dv[32 * slab + 2 * i], dv[32 * slab + 2 * i + 1]);
            store_rows(own_keys(L::v) + slab * L::key_slab, r, own_row, lane);
#pragma unroll
            for (int i = 0; i < 16; ++i)
                r[i] = pack_bf16(dk[32 * slab + 2 * i] * scale, dk[32 * slab + 2 * i + 1] * scale);
            store_rows(own_keys(L::k) + slab * L::key_slab, r, own_row, lane);
        }
        fence_async();
        sync_named(own_warpgroup + warpgroup, 128);
        if (warp == 0 && lane == 0) {
            const int column = item.pair * item_columns + warpgroup * 64;
            if (column < cta.problem.columns)
#pragma unroll
                for (int slab = 0; slab < L::slabs; ++slab) {
                    store_slab(&cta.maps.dv, own_keys(L::v) + slab * L::key_slab, 64 * slab, item.kv_head, column,
                               item.batch);
                    store_slab(&cta.maps.dk, own_keys(L::k) + slab * L::key_slab, 64 * slab, item.kv_head, column,
                               item.batch);
                }
            commit_stores();
            wait_stores_read();
            arrive(cta.barrier(L::keys_empty));
        }
        __syncwarp();
    }

    /// Where dS of the block of rows lies; of two places by turns, so that none is written while the other warpgroup may
    /// still read it: it has read what came before the last it wrote itself.
    __device__ uint32_t scores(uint32_t slots) const {
        return cta.address + L::ds + slots % 2 * L::score_bytes;
    }

    /// The tile of the warpgroup's own keys: P and dS, and on its way what they add to dV. Ends when both warpgroups have
    /// written dS.
    __device__ __forceinline__ void multiply_own(uint32_t (&p)[16], uint32_t (&ds)[16], float (&dk)[head_dim / 2],
                                                 float (&dv)[head_dim / 2], const Slot& slot, const BackwardItem& item,
                                                 uint32_t slots) const {
        const BackwardProblem& problem = cta.problem;
        const uint32_t stage = slots % L::stages, q = cta.rows(L::q, stage), dout = cta.rows(L::dout, stage);
        const int pair = 2 * (lane % 4);
        float s[32], dp[32];
        begin_products();
        multiply_rows<head_dim>(s, own_keys(L::k), L::key_slab, q, L::row_slab);
        commit_products();
        begin_products();
        multiply_rows<head_dim>(dp, own_keys(L::v), L::key_slab, dout, L::row_slab);
        commit_products();
        const bool partial = slot.tiles >> (2 + warpgroup) & 1;
        uint32_t hidden = 0;
        if (partial)
            hidden =
                hidden_scores(problem, slot, item.pair * item_columns + 64 * warpgroup + 16 * warp + lane / 4, pair);
        wait_products<1>();
        hold(s);
        const uint32_t statistics = cta.statistics(stage) + 4 * pair;
        to_probabilities(s, partial, hidden, statistics, problem.scale * 1.44269504f);
        // In long since: its branches keep the exponentials on this side of wait_products, beside dP; nothing else does.
        hold(s);
        wait(cta.barrier(L::full + static_cast<int>(stage)), slots / L::stages & 1);
        wait_products<0>();
        hold(dp);
        to_score_gradients(dp, s, statistics + 4 * block_rows);
        pack(ds, dp), pack(p, s);
        store_rows(scores(slots) + warpgroup * L::score_slab, ds, 16 * warp + lane % 16, lane);
        hold(dk), hold(dv), hold(p), hold(ds);
        begin_products();
        multiply_columns<head_dim>(dv, p, dout);
        commit_products();
        fence_async();
        sync_named(scores_written, 256);
    }

    /// dK += dS^T Q
    __device__ __forceinline__ void multiply_own_scores(const uint32_t (&ds)[16], float (&dk)[head_dim / 2],
                                                        uint32_t stage) const {
        begin_products();
        multiply_columns<head_dim>(dk, ds, cta.rows(L::q, stage));
        commit_products();
        wait_products<0>();
    }

    /// dQ of the block of rows over the keys of its active tiles, all columns or the warpgroup's slab; and beside its way
    /// out, where the own tile is active, dK += dS^T Q.
    template <bool own, bool both>
    __device__ __forceinline__ void multiply_shared_scores(const uint32_t (&ds)[16], float (&dk)[head_dim / 2],
                                                           int tiles, uint32_t slots) const {
        const uint64_t keys = mn_major(cta.address + L::k + (L::slabs == 2 ? warpgroup * L::key_slab : 0), L::key_slab),
                       from = mn_major(scores(slots), L::score_slab);
        float dq[32];
        const uint32_t first =
            both ? 0 : (tiles & 1 ? 0 : 1) * L::score_slab;  // 64 keys of K are as many bytes as of dS
        begin_products();
#pragma unroll
        for (int step = 0; step < (both ? 8 : 4); ++step) {
            const uint32_t bytes = first + 2048 * step;
            multiply_shared<true, true>(dq, advance(from, bytes), advance(keys, bytes), step > 0);
        }
        commit_products();
        if constexpr (own) {
            begin_products();
            multiply_columns<head_dim>(dk, ds, cta.rows(L::q, slots % L::stages));
            commit_products();
            wait_products<1>();
        } else {
            wait_products<0>();
        }
        hold(dq);
        const uint32_t place = slots % 2, slab = L::slabs == 2 ? warpgroup : 0;
        wait(cta.barrier(L::sums_empty + static_cast<int>(place)), (slots / 2 & 1) ^ 1);
        const uint32_t to =
            cta.address + L::sums + place * L::sums_bytes + slab * L::sum_bytes + 16 * (threadIdx.x % 128);
#pragma unroll
        for (int j = 0; j < 8; ++j) store_shared(to + 2048 * j, dq[4 * j], dq[4 * j + 1], dq[4 * j + 2], dq[4 * j + 3]);
        fence_async();
        release(L::sums_full + static_cast<int>(place));
        if constexpr (own) wait_products<0>();
    }

    __device__ void run() const {
        float dk[head_dim / 2], dv[head_dim / 2];
        uint32_t slots = 0;
        for (uint32_t n = 0;; ++n) {
            const BackwardItem item = cta.read_item(n);
            if (item.kv_head < 0) break;
#pragma unroll
            for (int i = 0; i < head_dim / 2; ++i) dk[i] = dv[i] = 0;
            wait(cta.barrier(L::keys_full), n & 1);

            for (int done = 0; done < item.slots; ++done, ++slots) {
                const uint32_t stage = slots % L::stages;
                wait(cta.barrier(L::full + static_cast<int>(stage)), slots / L::stages & 1);
                const Slot slot = *cta.slot(stage);
                const bool has_dq = L::slabs == 2 || static_cast<int>(slots % 2) == warpgroup;
                // Products under way must not meet at the end of a branch: ptxas would have all of them wait.
                if (slot.tiles >> warpgroup & 1) {
                    uint32_t p[16], ds[16];
                    multiply_own(p, ds, dk, dv, slot, item, slots);
                    if (!has_dq)
                        multiply_own_scores(ds, dk, stage);
                    else if ((slot.tiles & 3) == 3)
                        multiply_shared_scores<true, true>(ds, dk, slot.tiles, slots);
                    else
                        multiply_shared_scores<true, false>(ds, dk, slot.tiles, slots);
                    hold(dk), hold(dv), hold(p), hold(ds);
                } else {
                    uint32_t none[16];
                    sync_named(scores_written, 256);
                    if (has_dq) multiply_shared_scores<false, false>(none, dk, slot.tiles, slots);
                }
                release(L::empty + static_cast<int>(stage));
            }
            write(dk, dv, item);
        }
        if (warp == 0 && lane == 0) wait_stores();
    }
};

#endif

template <int head_dim>
__global__ void __launch_bounds__(backward_threads, 1)
    backward(const __grid_constant__ BackwardProblem problem, const __grid_constant__ BackwardMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ char shared[];
    const uint32_t start = shared_address(shared), aligned = (start + 1023) / 1024 * 1024;
    const BackwardCta<head_dim> cta{problem, maps, shared + (aligned - start), aligned};
    cta.initialise();
    const int warp = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x) / 32, 0);
    if (warp < 4) {
        give_registers<backward_feeder_registers>();
        if (warp == 0)
            cta.load();
        else if (warp >= 2)
            cta.add_sums(static_cast<uint32_t>(warp) - 2);
    } else {
        take_registers<backward_consumer_registers>();
        const Consumer<head_dim> consumer{cta, warp / 4 - 1, warp % 4, static_cast<int>(threadIdx.x % 32)};
        consumer.run();
    }
#endif
}

template <int head_dim>
void launch(const Context& ctx, const BackwardProblem& problem, const BackwardMaps& maps) {
    constexpr int bytes = BackwardLayout<head_dim>::bytes;
    check_cuda(cudaFuncSetAttribute(backward<head_dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               "flashmask backward");
    const unsigned grid = std::min(problem.schedule.items(), static_cast<unsigned>(ctx.gpu->multiprocessors()));
    backward<head_dim><<<grid, backward_threads, bytes, stream_of(ctx)>>>(problem, maps);
    check_launch("flashmask backward");
}

/// Where the parts of scratch lie, in floats. Wide heads have no sums and no tickets.
struct Scratch {
    int64_t blocks, summed, slabs, counters;

    Scratch(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim)
        : blocks(batch * heads * ((rows + block_rows - 1) / block_rows)),
          summed(head_dim == wide_head_dim ? 0 : blocks),
          slabs(head_dim / 64),
          counters(head_dim == wide_head_dim ? wide_counters : 1) {}
    int64_t sums() const { return blocks * statistics_of_block; }
    int64_t tickets() const { return sums() + summed * slabs * sum_block; }
    int64_t next() const { return tickets() + summed; }
    int64_t floats() const { return next() + counters; }
};

bool has_kernel(int64_t head_dim) {
    return head_dim == 64 || head_dim == 128 || head_dim == wide_head_dim;
}

}  // namespace

bool hopper_supports(const Context& ctx, const FlashMaskBackward& args) {
    const int64_t dim = args.q.size(3), length = std::max(args.q.size(1), args.k.size(1)),
                  items = args.q.size(0) * args.q.size(2) * ((length + item_columns - 1) / item_columns);
    return ctx.device == Device::cuda && ctx.gpu->runs_hopper_kernels() && has_kernel(dim) &&
           length < int64_t{1} << 30 && items < int64_t{1} << 30 && args.scale > 0 && has_tensor_map(args.q) &&
           has_tensor_map(args.k) && has_tensor_map(args.v) && has_tensor_map(args.dout) && has_tensor_map(args.dk) &&
           has_tensor_map(args.dv) && (dim != wide_head_dim || has_tensor_map(args.dq));
}

int64_t hopper_scratch_bytes(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim) {
    if (rows == 0 || !has_kernel(head_dim)) return 0;
    return Scratch(batch, rows, heads, head_dim).floats() * static_cast<int64_t>(sizeof(float));
}

void hopper_backward(const Context& ctx, const FlashMaskBackward& args) {
    const auto size = [](const Tensor& t, int dim) { return static_cast<int>(t.size(dim)); };
    const auto words = [](const Tensor& map) { return reinterpret_cast<const uint32_t*>(map.as<int32_t>()); };
    const GpuTilePlan& plan = args.plan.gpu;
    const int batch = size(args.q, 0), rows = size(args.q, 1), heads = size(args.q, 2), head_dim = size(args.q, 3),
              columns = size(args.k, 1), kv_heads = size(args.k, 2), mask_heads = static_cast<int>(args.mask.heads);
    const int group = heads / kv_heads, heads_per_mask = heads / mask_heads,
              column_blocks = size(plan.column_active, 1);
    const int kv_heads_of_slice = (heads_per_mask + group - 1) / group;
    // A query head's Q, dO and sums of dQ; half of the L2 cache for those that a section walks through at a time.
    const int64_t kept = std::max<int64_t>(1, (int64_t{32} << 20) / (int64_t{8} * batch * rows * head_dim));
    const Scratch scratch(batch, rows, heads, head_dim);
    auto* memory = reinterpret_cast<float*>(as_device<uint8_t>(args.scratch));
    const BackwardProblem problem{.column_active = words(plan.column_active),
                                  .column_partial = words(plan.column_partial),
                                  .row_active = words(plan.row_active),
                                  .bounds = reinterpret_cast<const int4*>(plan.bounds.as<int32_t>()),
                                  .lags = plan.column_lags.as<int64_t>(),
                                  .schedule = {.order = ctx.deterministic ? nullptr : plan.column_order.as<int32_t>(),
                                               .pairs = (column_blocks + 1) / 2,
                                               .slices = batch * mask_heads,
                                               .kv_heads = kv_heads_of_slice,
                                               .section = static_cast<int>(std::min<int64_t>(kept, kv_heads_of_slice))},
                                  .statistics = memory,
                                  .sums = memory + scratch.sums(),
                                  .tickets = reinterpret_cast<uint32_t*>(memory + scratch.tickets()),
                                  .next = reinterpret_cast<unsigned*>(memory + scratch.next()),
                                  .column_blocks = column_blocks,
                                  .row_blocks = size(plan.row_active, 1),
                                  .column_words = size(plan.column_active, 2),
                                  .row_words = size(plan.row_active, 2),
                                  .padded_columns = size(plan.bounds, 1),
                                  .rows = rows,
                                  .columns = columns,
                                  .heads = heads,
                                  .kv_heads = kv_heads,
                                  .mask_heads = mask_heads,
                                  .group = group,
                                  .heads_per_mask = heads_per_mask,
                                  .causal = args.mask.causal,
                                  .deterministic = ctx.deterministic,
                                  .scale = static_cast<float>(args.scale)};
    const BackwardMaps maps{make_tensor_map(args.q, block_rows),   make_tensor_map(args.k, item_columns),
                            make_tensor_map(args.v, item_columns), make_tensor_map(args.dout, block_rows),
                            make_tensor_map(args.dk, block_rows),  make_tensor_map(args.dv, block_rows)};
    const BackwardRows of_rows{.out = row_view(args.out),
                               .dout = row_view(args.dout),
                               .dq = row_view(args.dq),
                               .lse = args.lse.as<float>(),
                               .statistics = problem.statistics,
                               .sums = problem.sums,
                               .tickets = problem.tickets,
                               .next = problem.next,
                               .counters = static_cast<int>(scratch.counters),
                               .rows = rows,
                               .heads = heads,
                               .row_blocks = problem.row_blocks,
                               .blocks = scratch.blocks,
                               .scale = problem.scale};
    prepare_rows(stream_of(ctx), of_rows, head_dim);
    if (head_dim == wide_head_dim) {
        wide_key_gradients(ctx, args, problem, maps);
        wide_query_gradients(ctx, args, problem);
        return;
    }
    if (head_dim == 64)
        launch<64>(ctx, problem, maps);
    else
        launch<128>(ctx, problem, maps);
    finish_rows(stream_of(ctx), of_rows, head_dim);
}

}  // namespace colonnade::cuda
