// dV and dK of wide heads on Hopper, a launch each: see wide.cuh.
//
// A CTA is persistent, one to a multiprocessor. An item is 128 keys of one key/value head, whose gradient stays in registers
// over the active blocks of 64 rows of all query heads that share it. One warp takes items from a counter and brings their
// tiles by TMA. Two warpgroups have 64 keys each, the rows of their products:
//
//     S^T = K Q^T, dP^T = V dO^T (dK alone)    [64 keys, 64 rows], both operands K-major
//     dV += P^T dO, or dK += dS^T Q            [64 keys, head_dim], A from registers, B MN-major

#include <algorithm>

#include "attention/hopper/backward_scores.cuh"
#include "attention/hopper/wide.cuh"
#include "engine/device/gpu.cuh"

namespace colonnade::hopper {

enum class Gradient { of_keys, of_values };

/// Shared memory: bytes from a 1024-byte boundary on. dP is there before P, dS and dK: one place for dO will do.
template <Gradient gradient>
struct WideKeyLayout {
    static constexpr bool has_values = gradient == Gradient::of_keys;
    static constexpr int slabs = wide_head_dim / 64, stages = 2, dout_stages = has_values ? 1 : 2;
    static constexpr int key_slab = item_columns * 128, key_bytes = slabs * key_slab, row_slab = block_rows * 128,
                         row_bytes = slabs * row_slab, statistics_bytes = statistics_of_block * 4;
    static constexpr int k = 0, v = k + key_bytes, q = has_values ? v + key_bytes : v, dout = q + stages * row_bytes,
                         statistics = dout + dout_stages * row_bytes, slot = statistics + stages * statistics_bytes,
                         items = slot + stages * 16, barriers = items + 2 * 16;
    // Barriers, indices
    static constexpr int keys_full = 0, keys_empty = 1, item_full = 2, item_empty = 4, q_full = 6,
                         q_empty = q_full + stages, dout_full = q_empty + stages, dout_empty = dout_full + dout_stages,
                         barrier_count = dout_empty + dout_stages;
    static constexpr int bytes = barriers + 8 * barrier_count + 1024;  // and the way to the boundary
    static_assert(barriers % 8 == 0 && bytes <= 232448 && sizeof(BackwardItem) == 16 && sizeof(Slot) == 16);
};

namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <Gradient gradient>
struct WideCta {
    using L = WideKeyLayout<gradient>;
    const BackwardProblem& problem;
    const BackwardMaps& maps;
    char* memory;
    uint32_t address;

    __device__ uint32_t barrier(uint32_t index) const { return address + L::barriers + 8 * index; }
    __device__ uint32_t queries(uint32_t slot) const { return address + L::q + slot % L::stages * L::row_bytes; }
    __device__ uint32_t douts(uint32_t slot) const { return address + L::dout + slot % L::dout_stages * L::row_bytes; }
    __device__ uint32_t statistics(uint32_t slot) const {
        return address + L::statistics + slot % L::stages * L::statistics_bytes;
    }
    __device__ Slot* what(uint32_t slot) const { return reinterpret_cast<Slot*>(memory + L::slot) + slot % L::stages; }
    __device__ BackwardItem* item(uint32_t n) const {
        return reinterpret_cast<BackwardItem*>(memory + L::items) + n % 2;
    }
    __device__ void wait_queries(uint32_t slot) const {
        wait(barrier(L::q_full + slot % L::stages), slot / L::stages & 1);
    }
    __device__ void wait_douts(uint32_t slot) const {
        wait(barrier(L::dout_full + slot % L::dout_stages), slot / L::dout_stages & 1);
    }

    __device__ void initialise() const {
        if (threadIdx.x == 0) {
            constexpr int warps = 8 * arrivals_of_warp;  // that compute
            init_barrier(barrier(L::keys_full), 1);
            init_barrier(barrier(L::keys_empty), 2);  // a thread of each warpgroup
            for (uint32_t i = 0; i < 2; ++i) {
                init_barrier(barrier(L::item_full + i), 1);
                init_barrier(barrier(L::item_empty + i), warps);
            }
            for (uint32_t i = 0; i < L::stages; ++i) {
                init_barrier(barrier(L::q_full + i), 1);
                init_barrier(barrier(L::q_empty + i), warps);
            }
            for (uint32_t i = 0; i < L::dout_stages; ++i) {
                init_barrier(barrier(L::dout_full + i), 1);
                init_barrier(barrier(L::dout_empty + i), warps);
            }
            publish_barriers();
        }
        __syncthreads();
    }

    /// Takes item n and tells the others. Late, when all of item n - 1 is on its way: taken earlier, long items would keep
    /// short ones waiting that other CTAs could do.
    __device__ BackwardItem take_item(uint32_t n) const {
        wait(barrier(L::item_empty + n % 2), (n / 2 & 1) ^ 1);
        const BackwardItem next = next_backward_item(problem, problem.schedule.section);
        if (threadIdx.x % 32 == 0) {
            *item(n) = next;
            arrive(barrier(L::item_full + n % 2));
        }
        __syncwarp();
        return next;
    }

    /// Item n of this CTA, for a whole warp that computes.
    __device__ BackwardItem read_item(uint32_t n) const {
        wait(barrier(L::item_full + n % 2), n / 2 & 1);
        const BackwardItem read = *item(n);
        arrive_as_warp(barrier(L::item_empty + n % 2), threadIdx.x % 32);
        return read;
    }

    __device__ void load_keys(const BackwardItem& item, uint32_t n) const {
        const uint32_t full = barrier(L::keys_full);
        wait(barrier(L::keys_empty), (n & 1) ^ 1);
        if (item.slots == 0) return arrive(full);
        arrive_expecting(full, (L::has_values ? 2 : 1) * L::key_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            const uint32_t to = address + slab * L::key_slab;
            const int column = item.pair * item_columns;
            load_slab(to + L::k, &maps.k, full, 64 * slab, item.kv_head, column, item.batch, evict_first);
            if constexpr (L::has_values)
                load_slab(to + L::v, &maps.v, full, 64 * slab, item.kv_head, column, item.batch, evict_first);
        }
    }

    __device__ void load_rows(const BackwardItem& item, uint32_t slot, int head, int block, const Slot& rows) const {
        const uint32_t stage = slot % L::stages, q_full = barrier(L::q_full + stage);
        wait(barrier(L::q_empty + stage), (slot / L::stages & 1) ^ 1);
        *what(slot) = rows;
        arrive_expecting(q_full, L::row_bytes + L::statistics_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab)
            load_slab(queries(slot) + slab * L::row_slab, &maps.q, q_full, 64 * slab, head, rows.first_row, item.batch,
                      evict_last);
        const int64_t at = (static_cast<int64_t>(item.batch) * problem.heads + head) * problem.row_blocks + block;
        load_bytes(statistics(slot), problem.statistics + at * statistics_of_block, L::statistics_bytes, q_full);

        const uint32_t dout_full = barrier(L::dout_full + slot % L::dout_stages);
        wait(barrier(L::dout_empty + slot % L::dout_stages), (slot / L::dout_stages & 1) ^ 1);
        arrive_expecting(dout_full, L::row_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab)
            load_slab(douts(slot) + slab * L::row_slab, &maps.dout, dout_full, 64 * slab, head, rows.first_row,
                      item.batch, evict_last);
    }

    /// Keys come after the first rows, whose places are free while the item before is still being written.
    __device__ void load() const {
        const bool leader = threadIdx.x % 32 == 0;
        if (leader) {
            prefetch_map(&maps.q), prefetch_map(&maps.k), prefetch_map(&maps.dout);
            if constexpr (L::has_values) prefetch_map(&maps.v);
        }
        uint32_t slots = 0;
        for (uint32_t n = 0;; ++n) {
            const BackwardItem item = take_item(n);
            if (item.kv_head < 0) return;
            int before_keys = min(item.slots, L::dout_stages);
            if (leader && before_keys == 0) load_keys(item, n);
            for_each_slot(problem, item, [&](int head, int block, const Slot& rows) {
                if (leader) {
                    load_rows(item, slots, head, block, rows);
                    if (--before_keys == 0) load_keys(item, n);
                }
                ++slots;
                __syncwarp();
            });
            __syncwarp();
        }
    }
};

template <Gradient gradient>
struct WideConsumer {
    using L = WideKeyLayout<gradient>;
    const WideCta<gradient>& cta;
    int warpgroup, warp, lane;
    Turns turns;

    __device__ WideConsumer(const WideCta<gradient>& of, int group, int of_group)
        : cta(of), warpgroup(group), warp(of_group), lane(static_cast<int>(threadIdx.x % 32)), turns(group) {}

    __device__ void release(uint32_t barrier) const {
        arrive_as_warp(cta.barrier(barrier), static_cast<unsigned>(lane));
    }
    __device__ void release_queries(uint32_t slot) const { release(L::q_empty + slot % L::stages); }
    __device__ void release_douts(uint32_t slot) const { release(L::dout_empty + slot % L::dout_stages); }
    /// This warpgroup's 64 keys in the first slab of K or V.
    __device__ uint32_t own_keys(int tile) const { return cta.address + tile + warpgroup * 64 * 128; }

    /// What the warpgroup has summed, to where its keys were and on its way.
    __device__ void write(const float (&sum)[wide_head_dim / 2], const BackwardItem& item) const {
        const int own_row = 16 * warp + lane % 16;
        const float scale = gradient == Gradient::of_keys ? cta.problem.scale : 1;
        sync_named(own_named + warpgroup, 128);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            uint32_t r[16];
#pragma unroll
            for (int i = 0; i < 16; ++i)
                r[i] = pack_bf16(sum[32 * slab + 2 * i] * scale, sum[32 * slab + 2 * i + 1] * scale);
            store_rows(own_keys(L::k) + slab * L::key_slab, r, own_row, lane);
        }
        fence_async();
        sync_named(own_named + warpgroup, 128);
        if (warp == 0 && lane == 0) {
            const int column = item.pair * item_columns + warpgroup * 64;
            const CUtensorMap* to = gradient == Gradient::of_keys ? &cta.maps.dk : &cta.maps.dv;
            if (column < cta.problem.columns)
#pragma unroll
                for (int slab = 0; slab < L::slabs; ++slab)
                    store_slab(to, own_keys(L::k) + slab * L::key_slab, 64 * slab, item.kv_head, column, item.batch);
            commit_stores();
            wait_stores_read();
            arrive(cta.barrier(L::keys_empty));
        }
        __syncwarp();
    }

    /// What a tile that the warpgroup's keys are active in adds.
    __device__ __forceinline__ void add(float (&sum)[wide_head_dim / 2], const BackwardItem& item,
                                        uint32_t slot) const {
        const BackwardProblem& problem = cta.problem;
        const Slot rows = *cta.what(slot);
        const int pair = 2 * (lane % 4);
        float s[32];
        uint32_t factors[16];
        begin_products();
        multiply_rows<wide_head_dim>(s, own_keys(L::k), L::key_slab, cta.queries(slot), L::row_slab);
        commit_products();
        const bool partial = rows.tiles >> (2 + warpgroup) & 1;
        const auto hidden = [&] {
            return partial ? hidden_scores(problem, rows,
                                           item.pair * item_columns + 64 * warpgroup + 16 * warp + lane / 4, pair)
                           : 0;
        };
        const uint32_t statistics = cta.statistics(slot) + 4 * pair;
        const float scale = problem.scale * 1.44269504f;
        if constexpr (gradient == Gradient::of_values) {
            turns.pass();
            const uint32_t bits = hidden();
            wait_products<0>();
            hold(s);
            to_probabilities(s, partial, bits, statistics, scale);
            release_queries(slot);
            pack(factors, s);
            cta.wait_douts(slot);
        } else {
            float dp[32];
            cta.wait_douts(slot);
            begin_products();
            multiply_rows<wide_head_dim>(dp, own_keys(L::v), L::key_slab, cta.douts(slot), L::row_slab);
            commit_products();
            turns.pass();
            const uint32_t bits = hidden();
            wait_products<1>();
            hold(s);
            to_probabilities(s, partial, bits, statistics, scale);
            // In long since: its branches keep the exponentials on this side of wait_products, beside dP.
            hold(s);
            cta.wait_douts(slot);
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
                cta.wait_queries(slots);
                turns.take();
                if (cta.what(slots)->tiles >> warpgroup & 1) {
                    add(sum, item, slots);
                } else {
                    turns.pass();
                    cta.wait_douts(slots);
                    release_queries(slots);
                    release_douts(slots);
                }
            }
            write(sum, item);
        }
        if (warp == 0 && lane == 0) wait_stores();
    }
};

#endif

template <Gradient gradient>
__global__ void __launch_bounds__(backward_threads, 1)
    wide_keys(const __grid_constant__ BackwardProblem problem, const __grid_constant__ BackwardMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ char shared[];
    const uint32_t start = shared_address(shared), aligned = (start + 1023) / 1024 * 1024;
    const WideCta<gradient> cta{problem, maps, shared + (aligned - start), aligned};
    cta.initialise();
    const int warp = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x) / 32, 0);
    if (warp < 4) {
        give_registers<backward_feeder_registers>();
        if (warp == 0) cta.load();
    } else {
        take_registers<backward_consumer_registers>();
        const WideConsumer<gradient> consumer(cta, warp / 4 - 1, warp % 4);
        consumer.run();
    }
#endif
}

template <Gradient gradient>
void launch(const Context& ctx, const BackwardProblem& problem, const BackwardMaps& maps) {
    constexpr int bytes = WideKeyLayout<gradient>::bytes;
    check_cuda(cudaFuncSetAttribute(wide_keys<gradient>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               "flashmask backward");
    const unsigned grid = std::min(problem.schedule.items(), static_cast<unsigned>(ctx.gpu->multiprocessors()));
    wide_keys<gradient><<<grid, backward_threads, bytes, stream_of(ctx)>>>(problem, maps);
    check_launch("flashmask backward");
}

}  // namespace

void wide_key_gradients(const Context& ctx, const FlashMaskBackward& args, const BackwardProblem& problem,
                        const BackwardMaps& maps) {
    BackwardProblem of_values = problem;
    of_values.schedule.order = args.plan.gpu.column_order.as<int32_t>();  // nothing waits for another item
    BackwardProblem of_keys = of_values;
    of_keys.next = problem.next + 1;
    launch<Gradient::of_values>(ctx, of_values, maps);
    launch<Gradient::of_keys>(ctx, of_keys, maps);
}

}  // namespace colonnade::hopper
