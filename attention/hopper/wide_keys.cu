// dV and dK of wide heads on Hopper, one launch each: see wide.cuh.
//
// CTAs are persistent, one per multiprocessor. An item is 128 keys of one key/value head. Their gradient stays in
// registers over the active blocks of 64 rows of all query heads that share the head. One warp takes items from a
// counter and loads their tiles by TMA. Two warpgroups compute 64 keys each, which are the rows of their products:
//
//     S^T = K Q^T, dP^T = V dO^T (dK alone)    [64 keys, 64 rows], both operands K-major
//     dV += P^T dO, or dK += dS^T Q            [64 keys, head_dim], A from registers, B MN-major

#include <algorithm>

#include "attention/hopper/key_consumer.cuh"
#include "attention/hopper/wide.cuh"
#include "engine/device/gpu.cuh"

namespace colonnade::hopper {

enum class Gradient { of_keys, of_values };

/// For dK one buffer for dO is enough, because dP is complete before P, dS and dK.
template <Gradient gradient>
using WideKeyLayout = KeyLayout<KeyShape{.head_dim = wide_head_dim,
                                         .values = gradient == Gradient::of_keys,
                                         .stages = 2,
                                         .dout_stages = gradient == Gradient::of_keys ? 1 : 2,
                                         .sums = false}>;

namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// A computing warpgroup of the dV or the dK pass.
template <Gradient gradient>
struct WideKeyConsumer : KeyConsumer<WideKeyLayout<gradient>> {
    using L = WideKeyLayout<gradient>;
    using Base = KeyConsumer<L>;
    using Base::cta, Base::lane, Base::own_keys, Base::warp, Base::warpgroup;
    const Turns<2> turns;

    __device__ WideKeyConsumer(const KeyCta<L>& of, int group, int of_group)
        : Base(of, group, of_group), turns(group) {}

    __device__ void release_queries(uint32_t slot) const { this->release(L::empty + slot % L::stages); }
    __device__ void release_douts(uint32_t slot) const { this->release(L::dout_empty + slot % L::dout_stages); }
    __device__ void wait_douts(uint32_t slot) const {
        wait(cta.barrier(L::dout_full + slot % L::dout_stages), slot / L::dout_stages & 1);
    }

    /// Sends the warpgroup's gradient off through the buffer of its keys.
    __device__ void write(const float (&sum)[wide_head_dim / 2], const BackwardItem& item) const {
        sync_named(own_named<2> + warpgroup, 128);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab)
            this->put(sum, gradient == Gradient::of_keys ? cta.problem.scale : 1, L::k, slab);
        fence_async();
        sync_named(own_named<2> + warpgroup, 128);
        if (warp == 0 && lane == 0) {
            this->store(gradient == Gradient::of_keys ? cta.maps.dk : cta.maps.dv, L::k, item);
            this->return_keys();
        }
        __syncwarp();
    }

    /// Adds a block of rows whose tile with the warpgroup's keys is active.
    __device__ __forceinline__ void add(float (&sum)[wide_head_dim / 2], const BackwardItem& item,
                                        uint32_t slot) const {
        const BackwardProblem& problem = cta.problem;
        const Slot rows = *cta.what(slot);
        float s[32];
        uint32_t factors[16];
        begin_products();
        multiply_rows<wide_head_dim>(s, own_keys(L::k), L::key_slab, cta.queries(slot), L::row_slab);
        commit_products();
        const bool partial = rows.tiles >> (2 + warpgroup) & 1;
        const auto hidden = [&] { return partial ? this->hidden_of(rows, item) : 0; };
        const uint32_t statistics = cta.statistics(slot) + 4 * (2 * (lane % 4));
        const float scale = problem.scale * 1.44269504f;
        if constexpr (gradient == Gradient::of_values) {
            turns.pass();
            const uint32_t bits = hidden();
            wait_products<0>();
            hold(s);
            to_probabilities(s, partial, bits, statistics, scale);
            release_queries(slot);
            pack(factors, s);
            wait_douts(slot);
        } else {
            float dp[32];
            wait_douts(slot);
            begin_products();
            multiply_rows<wide_head_dim>(dp, own_keys(L::v), L::key_slab, cta.douts(slot), L::row_slab);
            commit_products();
            turns.pass();
            const uint32_t bits = hidden();
            wait_products<1>();
            hold(s);
            to_probabilities(s, partial, bits, statistics, scale);
            // dO arrived long ago: this wait is here because its branches keep the exponentials before wait_products,
            // where they overlap with dP.
            hold(s);
            wait_douts(slot);
            wait_products<0>();
            hold(dp);
            release_douts(slot);
            to_score_gradients(dp, s, statistics + 4 * block_rows);
            pack(factors, dp);
        }
        hold(sum), hold(factors);
        begin_products();
        multiply_columns<wide_head_dim>(sum, factors,
                                        gradient == Gradient::of_keys ? cta.queries(slot) : cta.douts(slot));
        commit_products();
        wait_products<0>();
        hold(sum), hold(factors);
        if constexpr (gradient == Gradient::of_keys)
            release_queries(slot);
        else
            release_douts(slot);
    }

    __device__ void run() const {
        float sum[wide_head_dim / 2];
        uint32_t slots = 0;
        for (uint32_t n = 0;; ++n) {
            const BackwardItem item = cta.read_item(n);
            if (item.kv_head < 0) break;
#pragma unroll
            for (float& x : sum) x = 0;
            wait(cta.barrier(L::keys_full), n & 1);
            for (int done = 0; done < item.slots; ++done, ++slots) {
                cta.wait_rows(slots);
                turns.take();
                if (cta.what(slots)->tiles >> warpgroup & 1) {
                    add(sum, item, slots);
                } else {
                    turns.pass();
                    wait_douts(slots);
                    release_queries(slots);
                    release_douts(slots);
                }
            }
            if (this->take_turn(item.piece)) {
                this->add_pieces(sum, item.piece, 0);
                this->pass_turn(item.piece);
            }
            if (item.piece.last) write(sum, item);
        }
        if (warp == 0 && lane == 0) wait_stores();
    }
};

#endif

template <Gradient gradient>
__global__ void __launch_bounds__(WideKeyLayout<gradient>::threads, 1)
    wide_keys(const __grid_constant__ BackwardProblem problem, const __grid_constant__ BackwardMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    const KeyCta<WideKeyLayout<gradient>> cta{problem, maps, memory, shared_address(memory)};
    cta.template run<WideKeyConsumer<gradient>>();
#endif
}

template <Gradient gradient>
void launch(const Context& ctx, const BackwardProblem& problem, const BackwardMaps& maps) {
    using L = WideKeyLayout<gradient>;
    check_cuda(cudaFuncSetAttribute(wide_keys<gradient>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes),
               "flashmask backward");
    wide_keys<gradient>
        <<<grid_of(problem.schedule, ctx.gpu->multiprocessors()), L::threads, L::bytes, stream_of(ctx)>>>(problem,
                                                                                                          maps);
    check_launch("flashmask backward");
}

}  // namespace

void wide_key_gradients(const Context& ctx, const BackwardProblem& problem, const BackwardMaps& maps) {
    BackwardProblem of_values = problem;
    of_values.deterministic = false;  // there are no sums of dQ, whose order would matter
    of_values.schedule.last_order = problem.plan.last_column_order;
    BackwardProblem of_keys = of_values;
    of_keys.scratch.next = problem.scratch.next + 1;
    of_keys.scratch.piece_tickets = problem.scratch.piece_tickets + piece_tickets;
    launch<Gradient::of_values>(ctx, of_values, maps);
    launch<Gradient::of_keys>(ctx, of_keys, maps);
}

}  // namespace colonnade::hopper
