// FlashMask backward on Hopper: the loop of FlashAttention-3 (arXiv 2407.08608, hopper/mainloop_bwd_sm90_tma_gmma_ws)
// over the active tiles of the plan. Three launches: row statistics; the main kernel for dK, dV and sums of dQ; the
// rounding of dQ. The first and the last are in backward_rows.cu. Wide heads (head_dim 256) have other main kernels
// (wide.cuh).
//
// CTAs are persistent, one per multiprocessor. An item is 128 keys of one key/value head; dK and dV stay in registers
// over the active blocks of rows of all query heads that share the head. In the first warpgroup one warp takes items
// from a counter and loads their tiles by TMA, two add sums of dQ to global memory (key_feed.cuh). The two other
// warpgroups compute 64 keys each. Keys are the rows of their products, so that P^T and dS^T are already laid out as A
// operands:
//
//     S^T = K Q^T,  dP^T = V dO^T   [64 keys, 64 rows], both operands K-major
//     dV += P^T dO, dK += dS^T Q    [64 keys, head_dim], A in registers, B MN-major
//     dQ = dS K                     [64 rows, 64 columns] over all 128 keys, both operands MN-major
//
// dS passes through shared memory as [keys][rows]. For head_dim 128 the warpgroups split dQ of each block of 64 rows by
// columns; for head_dim 64 they take blocks in turn. An empty tile of 64 x 64 costs no product, neither its own nor its
// part of dQ.
//
// Items that would outlast all others, such as those of a stem that all rows see, are cut into pieces of some blocks of
// rows (backward_schedule.h). CTAs add dK and dV of an item's pieces in the order of the pieces.
//
// Determinism: dK and dV are always deterministic, because a CTA visits its blocks in a fixed order. For deterministic
// dQ every block of its sums has a ticket: an item adds after all earlier items of the schedule that are active there.
// Items are taken in that order, so that the earliest unfinished item never waits.

#include <algorithm>

#include "attention/hopper/backward_rows.cuh"
#include "attention/hopper/hopper.h"
#include "attention/hopper/key_consumer.cuh"
#include "attention/hopper/key_feed.cuh"
#include "attention/hopper/wide.cuh"
#include "engine/device/gpu.cuh"
#include "engine/device/hopper/tensor_map.h"

namespace colonnade::hopper {

template <int head_dim>
using BackwardLayout = KeyLayout<KeyShape{
    .head_dim = head_dim, .values = true, .stages = head_dim == 64 ? 4 : 2, .dout_stages = 0, .sums = true}>;

}  // namespace colonnade::hopper

namespace colonnade::cuda {
namespace {

using namespace hopper;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Named barriers of both warpgroups: dS is written; the keys of an item are read.
constexpr int scores_written = 1, keys_read = 2;

/// A computing warpgroup.
template <int head_dim>
struct BackwardConsumer : KeyConsumer<BackwardLayout<head_dim>> {
    using L = BackwardLayout<head_dim>;
    using Base = KeyConsumer<L>;
    using Base::Base, Base::cta, Base::lane, Base::own_keys, Base::put, Base::release, Base::warp, Base::warpgroup;

    /// Sends the warpgroup's dK and dV off through shared memory.
    __device__ void write(const float (&dk)[head_dim / 2], const float (&dv)[head_dim / 2],
                          const BackwardItem& item) const {
        sync_named(keys_read, 256);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            put(dv, 1, L::v, slab);
            put(dk, cta.problem.scale, L::k, slab);
        }
        fence_async();
        sync_named(own_named<2> + warpgroup, 128);
        if (warp == 0 && lane == 0) {
            this->store(cta.maps.dv, L::v, item);
            this->store(cta.maps.dk, L::k, item);
            this->return_keys();
        }
        __syncwarp();
    }

    /// Address of dS of the block of rows. Two buffers alternate, so that none is written while the other warpgroup may
    /// still read it: that warpgroup has read everything older than the last dS it wrote.
    __device__ uint32_t scores(uint32_t slots) const {
        return cta.address + L::ds + slots % 2 * L::score_bytes;
    }

    /// P and dS of the tile of the warpgroup's own keys; starts dV += P^T dO. Returns when both warpgroups have written
    /// dS.
    __device__ __forceinline__ void multiply_own(uint32_t (&p)[16], uint32_t (&ds)[16], float (&dk)[head_dim / 2],
                                                 float (&dv)[head_dim / 2], const Slot& slot, const BackwardItem& item,
                                                 uint32_t slots) const {
        const BackwardProblem& problem = cta.problem;
        const uint32_t q = cta.queries(slots), dout = cta.douts(slots);
        float s[32], dp[32];
        begin_products();
        multiply_rows<head_dim>(s, own_keys(L::k), L::key_slab, q, L::row_slab);
        commit_products();
        begin_products();
        multiply_rows<head_dim>(dp, own_keys(L::v), L::key_slab, dout, L::row_slab);
        commit_products();
        const bool partial = slot.tiles >> (2 + warpgroup) & 1;
        const uint32_t hidden = partial ? this->hidden_of(slot, item) : 0;
        wait_products<1>();
        hold(s);
        const uint32_t statistics = cta.statistics(slots) + 4 * (2 * (lane % 4));
        to_probabilities(s, partial, hidden, statistics, problem.scale * 1.44269504f);
        // The rows arrived long ago: this wait is here because its branches keep the exponentials before wait_products,
        // where they overlap with dP. Nothing else does.
        hold(s);
        cta.wait_rows(slots);
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
                                                        uint32_t slots) const {
        begin_products();
        multiply_columns<head_dim>(dk, ds, cta.queries(slots));
        commit_products();
        wait_products<0>();
    }

    /// dQ of the block of rows over the keys of its active tiles, all columns or the warpgroup's slab. If the
    /// warpgroup's own tile is active, dK += dS^T Q runs while dQ leaves.
    template <bool own, bool both>
    __device__ __forceinline__ void multiply_shared_scores(const uint32_t (&ds)[16], float (&dk)[head_dim / 2],
                                                           int tiles, uint32_t slots) const {
        const uint64_t keys = mn_major(cta.address + L::k + (L::slabs == 2 ? warpgroup * L::key_slab : 0), L::key_slab),
                       from = mn_major(scores(slots), L::score_slab);
        float dq[32];
        // 64 keys take as many bytes in K as in dS.
        const uint32_t first = both ? 0 : (tiles & 1 ? 0 : 1) * L::score_slab;
        begin_products();
#pragma unroll
        for (int step = 0; step < (both ? 8 : 4); ++step) {
            const uint32_t bytes = first + 2048 * step;
            multiply_shared<true, true>(dq, advance(from, bytes), advance(keys, bytes), step > 0);
        }
        commit_products();
        if constexpr (own) {
            begin_products();
            multiply_columns<head_dim>(dk, ds, cta.queries(slots));
            commit_products();
            wait_products<1>();
        } else {
            wait_products<0>();
        }
        hold(dq);
        const uint32_t place = slots % 2, slab = L::slabs == 2 ? warpgroup : 0;
        wait(cta.barrier(L::sums_empty + place), (slots / 2 & 1) ^ 1);
        const uint32_t to =
            cta.address + L::sums + place * L::sums_bytes + slab * L::sum_bytes + 16 * (threadIdx.x % 128);
#pragma unroll
        for (int j = 0; j < 8; ++j) store_shared(to + 2048 * j, dq[4 * j], dq[4 * j + 1], dq[4 * j + 2], dq[4 * j + 3]);
        fence_async();
        release(L::sums_full + place);
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
                cta.wait_rows(slots);
                const Slot slot = *cta.what(slots);
                const bool has_dq = L::slabs == 2 || static_cast<int>(slots % 2) == warpgroup;
                // Branches must not join while products are under way: ptxas would then serialise all of them.
                if (slot.tiles >> warpgroup & 1) {
                    uint32_t p[16], ds[16];
                    multiply_own(p, ds, dk, dv, slot, item, slots);
                    if (!has_dq)
                        multiply_own_scores(ds, dk, slots);
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
                release(L::empty + slots % L::stages);
            }
            if (this->take_turn(item.piece)) {
                this->add_pieces(dv, item.piece, 0);
                this->add_pieces(dk, item.piece, 1);
                this->pass_turn(item.piece);
            }
            if (item.piece.last) write(dk, dv, item);
        }
        if (warp == 0 && lane == 0) wait_stores();
    }
};

#endif

template <int head_dim>
__global__ void __launch_bounds__(BackwardLayout<head_dim>::threads, 1)
    backward(const __grid_constant__ BackwardProblem problem, const __grid_constant__ BackwardMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using L = BackwardLayout<head_dim>;
    extern __shared__ __align__(1024) char memory[];
    const KeyCta<L> cta{problem, maps, memory, shared_address(memory)};
    cta.template run<BackwardConsumer<head_dim>>();
#endif
}

template <int head_dim>
void launch(const Context& ctx, const BackwardProblem& problem, const BackwardMaps& maps) {
    using L = BackwardLayout<head_dim>;
    check_cuda(cudaFuncSetAttribute(backward<head_dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes),
               "flashmask backward");
    backward<head_dim><<<grid_of(problem.schedule, ctx.gpu->multiprocessors()), L::threads, L::bytes, stream_of(ctx)>>>(
        problem, maps);
    check_launch("flashmask backward");
}

BackwardScratch scratch_in(float* memory, const ScratchLayout& layout) {
    return {.statistics = memory,
            .sums = memory + layout.sums(),
            .tickets = reinterpret_cast<uint32_t*>(memory + layout.tickets()),
            .piece_sums = memory + layout.piece_sums(),
            .piece_tickets = reinterpret_cast<uint32_t*>(memory + layout.next() + layout.counters),
            .next = reinterpret_cast<unsigned*>(memory + layout.next())};
}

int int_size(const Tensor& t, int dim) {
    return static_cast<int>(t.size(dim));
}

BackwardPlan plan_of(const GpuTilePlan& plan) {
    const auto words = [](const Tensor& map) { return reinterpret_cast<const uint32_t*>(map.as<int32_t>()); };
    return {.column_active = words(plan.column_active),
            .column_partial = words(plan.column_partial),
            .row_active = words(plan.row_active),
            .bounds = reinterpret_cast<const int4*>(plan.bounds.as<int32_t>()),
            .column_lags = plan.hopper.column_lags.as<int64_t>(),
            .column_order = plan.column_order.as<int32_t>(),
            .longest_columns = plan.hopper.longest_columns.as<int32_t>(),
            .last_column_order = plan.hopper.last_column_order.as<int32_t>(),
            .column_blocks = int_size(plan.column_active, 1),
            .row_blocks = int_size(plan.row_active, 1),
            .column_words = int_size(plan.column_active, 2),
            .row_words = int_size(plan.row_active, 2),
            .padded_columns = int_size(plan.bounds, 1)};
}

BackwardProblem problem_of(const Context& ctx, const FlashMaskBackward& args, const ScratchLayout& scratch) {
    const int batch = int_size(args.q, 0), rows = int_size(args.q, 1), heads = int_size(args.q, 2),
              head_dim = int_size(args.q, 3), kv_heads = int_size(args.k, 2),
              mask_heads = static_cast<int>(args.mask.heads);
    const int group = heads / kv_heads, heads_per_mask = heads / mask_heads,
              kv_heads_of_sheet = (heads_per_mask + group - 1) / group;
    const BackwardPlan plan = plan_of(args.plan.gpu);
    return {.plan = plan,
            .schedule = {.last_order = ctx.deterministic ? nullptr : plan.last_column_order,
                         .block_pairs = (plan.column_blocks + 1) / 2,
                         .sheets = batch * mask_heads,
                         .kv_heads = kv_heads_of_sheet,
                         .section = heads_in_cache(rows, head_dim, kv_heads_of_sheet)},
            .scratch = scratch_in(reinterpret_cast<float*>(as_device<uint8_t>(args.scratch)), scratch),
            .rows = rows,
            .columns = int_size(args.k, 1),
            .heads = heads,
            .kv_heads = kv_heads,
            .mask_heads = mask_heads,
            .group = group,
            .heads_per_mask = heads_per_mask,
            .heads_of_map = heads_per_mask % group == 0 ? group : 1,
            .causal = args.mask.causal,
            .deterministic = ctx.deterministic,
            .scale = static_cast<float>(args.scale),
            .positions = args.mask.position_window > 0 ? args.plan.gpu.positions.as<int32_t>() : nullptr,
            .window = args.mask.position_window};
}

/// Arguments of the launches before and after the main kernel.
BackwardRows rows_of(const FlashMaskBackward& args, const BackwardProblem& problem, const ScratchLayout& scratch) {
    return {.out = row_view(args.out),
            .dout = row_view(args.dout),
            .dq = row_view(args.dq),
            .lse = args.lse.as<float>(),
            .statistics = problem.scratch.statistics,
            .sums = problem.scratch.sums,
            .tickets = problem.scratch.tickets,
            .next = problem.scratch.next,
            .cleared = static_cast<int>(scratch.cleared()),
            .rows = problem.rows,
            .heads = problem.heads,
            .row_blocks = problem.plan.row_blocks,
            .blocks = scratch.blocks,
            .scale = problem.scale};
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

void hopper_backward(const Context& ctx, const FlashMaskBackward& args) {
    const int64_t head_dim = args.q.size(3);
    const ScratchLayout scratch(args.q.size(0), args.q.size(1), args.q.size(2), head_dim);
    const BackwardProblem problem = problem_of(ctx, args, scratch);
    const BackwardMaps maps{.q = make_tensor_map(args.q, block_rows),
                            .k = make_tensor_map(args.k, item_columns),
                            .v = make_tensor_map(args.v, item_columns),
                            .dout = make_tensor_map(args.dout, block_rows),
                            .dk = make_tensor_map(args.dk, block_rows),
                            .dv = make_tensor_map(args.dv, block_rows)};
    const BackwardRows rows = rows_of(args, problem, scratch);
    prepare_rows(stream_of(ctx), rows, static_cast<int>(head_dim));
    if (head_dim == wide_head_dim) {
        wide_key_gradients(ctx, problem, maps);
        wide_query_gradients(ctx, args, problem);
        return;
    }
    if (head_dim == 64)
        launch<64>(ctx, problem, maps);
    else
        launch<128>(ctx, problem, maps);
    finish_rows(stream_of(ctx), rows, static_cast<int>(head_dim));
}

}  // namespace colonnade::cuda
