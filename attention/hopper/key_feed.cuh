#pragma once
// The feeding side of the Hopper kernels that keep keys: the warps that load keys, values, queries and dO and that
// carry sums of dQ away, while two warpgroups compute. L is a KeyLayout.

#include "attention/hopper/key_layout.cuh"
#include "attention/hopper/ptx_backward.cuh"

namespace colonnade::hopper {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <typename Layout>
struct KeyCta {
    using L = Layout;
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
    /// Waits for Q, statistics and Slot; also for dO if it shares their stages.
    __device__ void wait_rows(uint32_t slot) const { wait(barrier(L::full + slot % L::stages), slot / L::stages & 1); }

    /// The kernel. In the first warpgroup warp 0 loads, and warps 2 and 3 add sums of dQ; the others compute.
    template <typename Consumer>
    __device__ void run() const {
        initialise();
        const int warp = uniform(static_cast<int>(threadIdx.x) / 32);
        if (warp < 4) {
            give_registers<L::feeder_registers>();
            if (warp == 0)
                load();
            else if (L::has_sums && warp >= 2)
                add_sums(static_cast<uint32_t>(warp) - 2);
        } else {
            take_registers<L::consumer_registers>();
            Consumer(*this, warp / 4 - 1, warp % 4).run();
        }
    }

    /// Returns item n of this CTA to a whole warp.
    __device__ BackwardItem read_item(uint32_t n) const {
        wait(barrier(L::item_full + n % 2), n / 2 & 1);
        const BackwardItem read = *item(n);
        arrive_as_warp(barrier(L::item_empty + n % 2), threadIdx.x % 32);
        return read;
    }

    __device__ void initialise() const {
        if (threadIdx.x == 0) {
            constexpr int computing = 8 * arrivals_of_warp;  // warps of both warpgroups
            init_barrier(barrier(L::keys_full), 1);
            init_barrier(barrier(L::keys_empty), 2);  // a thread of each warpgroup
            for (int i = 0; i < 2; ++i) {
                if constexpr (L::has_sums) {
                    // The warps of one warpgroup, or of both.
                    init_barrier(barrier(L::sums_full + i), 4 * L::slabs * arrivals_of_warp);
                    init_barrier(barrier(L::sums_empty + i), 1);
                }
                init_barrier(barrier(L::item_full + i), 1);
                init_barrier(barrier(L::item_empty + i), computing + (L::has_sums ? 2 * arrivals_of_warp : 0));
            }
            for (int i = 0; i < L::stages; ++i) {
                init_barrier(barrier(L::full + i), 1);
                init_barrier(barrier(L::empty + i), computing);
            }
            for (int i = 0; i < L::own_dout; ++i) {
                init_barrier(barrier(L::dout_full + i), 1);
                init_barrier(barrier(L::dout_empty + i), computing);
            }
            publish_barriers();
        }
        __syncthreads();
    }

    /// Takes item n and publishes it. This happens late, when all loads of item n - 1 are on their way: a CTA that took
    /// items earlier would keep short ones waiting behind long ones while other CTAs could do them.
    __device__ BackwardItem take_item(uint32_t n, const CutEntries& cut, int section) const {
        wait(barrier(L::item_empty + n % 2), (n / 2 & 1) ^ 1);
        const BackwardItem next = next_backward_item(problem, cut, section);
        if (threadIdx.x % 32 == 0) {
            *item(n) = next;
            arrive(barrier(L::item_full + n % 2));
        }
        __syncwarp();
        return next;
    }

    __device__ void load_keys(const BackwardItem& item, uint32_t n) const {
        const uint32_t full = barrier(L::keys_full);
        wait(barrier(L::keys_empty), (n & 1) ^ 1);
        if (item.slots == 0) return arrive(full);
        arrive_expecting(full, (L::values ? 2 : 1) * L::key_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            const uint32_t to = address + slab * L::key_slab;
            const int column = item.block_pair * item_columns;
            load_slab(to + L::k, &maps.k, full, 64 * slab, item.kv_head, column, item.batch, evict_first);
            if constexpr (L::values)
                load_slab(to + L::v, &maps.v, full, 64 * slab, item.kv_head, column, item.batch, evict_first);
        }
    }

    __device__ void load_rows(const BackwardItem& item, uint32_t slot, int head, int block, const Slot& rows) const {
        const uint32_t stage = slot % L::stages, full = barrier(L::full + stage);
        wait(barrier(L::empty + stage), (slot / L::stages & 1) ^ 1);
        *what(slot) = rows;
        arrive_expecting(full, (L::own_dout ? 1 : 2) * L::row_bytes + L::statistics_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            load_slab(queries(slot) + slab * L::row_slab, &maps.q, full, 64 * slab, head, rows.first_row, item.batch,
                      evict_last);
            if constexpr (!L::own_dout) load_dout(item, slot, slab, head, rows.first_row, full);
        }
        load_bytes(
            statistics(slot),
            problem.scratch.statistics + int64_t{problem.block_index(item.batch, head, block)} * statistics_of_block,
            L::statistics_bytes, full);
        if constexpr (L::own_dout > 0) {
            const uint32_t dout_full = barrier(L::dout_full + slot % L::dout_stages);
            wait(barrier(L::dout_empty + slot % L::dout_stages), (slot / L::dout_stages & 1) ^ 1);
            arrive_expecting(dout_full, L::row_bytes);
#pragma unroll
            for (int slab = 0; slab < L::slabs; ++slab) load_dout(item, slot, slab, head, rows.first_row, dout_full);
        }
    }
    __device__ void load_dout(const BackwardItem& item, uint32_t slot, int slab, int head, int row,
                              uint32_t full) const {
        load_slab(douts(slot) + slab * L::row_slab, &maps.dout, full, 64 * slab, head, row, item.batch, evict_last);
    }

    /// Keys come after the first rows, whose buffers are free while the item before is still being written.
    __device__ void load() const {
        const bool leader = threadIdx.x % 32 == 0;
        if (leader) {
            prefetch_map(&maps.q), prefetch_map(&maps.k), prefetch_map(&maps.dout);
            if constexpr (L::values) prefetch_map(&maps.v);
            prefetch_map(&maps.dk), prefetch_map(&maps.dv);
        }
        const int section = section_of(problem);
        const CutEntries cut(problem);
        uint32_t slots = 0;
        for (uint32_t n = 0;; ++n) {
            const BackwardItem item = take_item(n, cut, section);
            if (item.kv_head < 0) return;
            int before_keys = min(item.slots, L::dout_stages);
            if (leader && before_keys == 0) load_keys(item, n);
            for_each_slot<true>(problem, item, [&](int head, int block, const Slot& rows) {
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

    /// Number of items that add to these rows before this one does.
    __device__ uint32_t turn_of(const BackwardItem& item, const CutEntries& cut, int block, int sheet) const {
        const BackwardPlan& plan = problem.plan;
        const uint32_t* words =
            plan.row_active + (static_cast<int64_t>(sheet) * plan.row_blocks + block) * plan.row_words;
        const int pair = item.piece.entry < 0 ? item.block_pair : -1, lane = static_cast<int>(threadIdx.x % 32);
        uint32_t before = 0;
        for (int first = 0; first < plan.row_words; first += 32) {
            const int w = first + lane;
            const CutPairs pairs = cut.in_word(problem, sheet, w, item.piece.entry);
            if (w < plan.row_words) before += __popc(earlier_pairs(words[w], w, pair, pairs));
        }
        return __reduce_add_sync(whole_warp, before);
    }

    /// Adds the sums that the warpgroups leave in buffer `place` to those in scratch, for every other block of rows:
    /// while one warp waits for its turn or for the end of its addition, the other one works.
    __device__ void add_sums(uint32_t place) const {
        const bool leader = threadIdx.x % 32 == 0;
        const CutEntries cut(problem);
        uint32_t slots = 0;
        for (uint32_t n = 0;; ++n) {
            const BackwardItem item = read_item(n);
            if (item.kv_head < 0) break;
            for_each_slot<false>(problem, item, [&](int head, int block, const Slot& what) {
                const uint32_t slot = slots++;
                if (slot % 2 != place) return;
                const uint32_t at = problem.block_index(item.batch, head, block);
                const uint32_t turn = problem.deterministic ? turn_of(item, cut, block, what.sheet) : 0;
                if (leader) {
                    if (problem.deterministic) wait_ticket(problem.scratch.tickets + at, turn);
                    wait(barrier(L::sums_full + place), slot / 2 & 1);
                    add_floats(problem.scratch.sums + int64_t{at} * L::slabs * sum_block,
                               address + L::sums + place * L::sums_bytes, L::sums_bytes);
                    commit_stores();
                    wait_stores_read();
                    arrive(barrier(L::sums_empty + place));
                    if (problem.deterministic) {
                        wait_stores();
                        pass_ticket(problem.scratch.tickets + at);
                    }
                }
                __syncwarp();
            });
            __syncwarp();
        }
        if (leader) wait_stores();
    }
};

#endif

}  // namespace colonnade::hopper
