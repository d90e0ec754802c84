#pragma once
// The side of Hopper's backward that feeds: a CTA's shared memory, the walk over an item's tiles, and the warps that bring
// keys, values, queries and dO, and carry sums of dQ away, while two warpgroups compute (backward.cu).

#include "attention/hopper/backward_maps.h"
#include "attention/hopper/backward_schedule.h"
#include "attention/hopper/ptx_backward.cuh"
#include "attention/tile_plan.h"

namespace colonnade::hopper {

constexpr int backward_threads = 384, block_rows = GpuTilePlan::tile, item_columns = 2 * GpuTilePlan::tile;
constexpr int backward_feeder_registers = 56, backward_consumer_registers = 224;  // 168 each at launch; 40 spill
constexpr unsigned all_lanes = 0xffffffffu;

/// lse * log2(e) of 64 rows, then their delta.
constexpr int statistics_of_block = 2 * block_rows;

struct BackwardProblem {
    const uint32_t *column_active, *column_partial, *row_active;  ///< of GpuTilePlan
    const int4* bounds;
    const int64_t* lags;  ///< GpuTilePlan::column_lags
    Schedule schedule;
    // In scratch, by [batch, heads, row_blocks].
    float* statistics;  ///< [128]: lse * log2(e), +inf for rows that see nothing or do not exist; delta
    float* sums;        ///< [head_dim / 64, 4096]: dQ / scale, see backward_maps.h
    uint32_t* tickets;  ///< how many items have added to the sums
    unsigned* next;     ///< the next item
    int column_blocks, row_blocks, column_words, row_words;  ///< words of a column block's map, of a row block's
    int padded_columns;
    int rows, columns, heads, kv_heads, mask_heads;
    int group, heads_per_mask;  ///< query heads of a key/value head, of a mask head
    bool causal, deterministic;
    float scale;
};

struct BackwardMaps {
    CUtensorMap q, k, v, dout, dk, dv;
};

/// 128 keys of one key/value head; no head (-1) tells that the work is done.
struct BackwardItem {
    int batch, kv_head, pair;
    int slots;  ///< active blocks of rows, over all query heads of the group
};

/// What consumers must know of a block of rows. Bits of `tiles`: 0 and 1, the tiles with the item's first and second 64
/// keys are active; 2 and 3, they are partial.
struct alignas(16) Slot {
    int tiles, first_row, slice;
};

/// Shared memory: bytes from a 1024-byte boundary on. A stage is Q and dO of a block of 64 rows.
template <int head_dim>
struct BackwardLayout {
    static constexpr int slabs = head_dim / 64, stages = 4 / slabs;
    static constexpr int key_slab = item_columns * 128, key_bytes = slabs * key_slab, row_slab = block_rows * 128,
                         row_bytes = slabs * row_slab, score_slab = 64 * 128, score_bytes = 2 * score_slab,
                         sum_bytes = sum_block * 4, sums_bytes = slabs * sum_bytes,
                         statistics_bytes = statistics_of_block * 4;
    /// ds: two blocks of rows by turns, two slabs [64 keys][64 rows] each; sums of dQ: likewise, as in scratch.
    static constexpr int k = 0, v = k + key_bytes, q = v + key_bytes, dout = q + stages * row_bytes,
                         ds = dout + stages * row_bytes, sums = ds + 2 * score_bytes,
                         statistics = sums + 2 * sums_bytes, slot = statistics + stages * statistics_bytes,
                         items = slot + stages * 16, barriers = items + 2 * 16;
    // Barriers, indices
    static constexpr int keys_full = 0, keys_empty = 1, sums_full = 2, sums_empty = 4, item_full = 6, item_empty = 8,
                         full = 10, empty = full + stages, barrier_count = empty + stages;
    static constexpr int bytes = barriers + 8 * barrier_count + 1024;  // and the way to the boundary
    static_assert(sizeof(Slot) == 16 && sizeof(BackwardItem) == 16 && barriers % 8 == 0 && bytes <= 232448);
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Both column blocks of an item in word `w` of their maps.
struct PairBits {
    uint32_t active[2] = {0, 0}, partial[2] = {0, 0};

    __device__ PairBits(const BackwardProblem& p, int slice, int pair, int w) {
        if (w >= p.column_words) return;
        for (int i = 0; i < 2; ++i) {
            if (2 * pair + i >= p.column_blocks) return;
            const int64_t at = (static_cast<int64_t>(slice) * p.column_blocks + 2 * pair + i) * p.column_words + w;
            active[i] = p.column_active[at], partial[i] = p.column_partial[at];
        }
    }
};

__device__ inline int slice_of(const BackwardProblem& p, int batch, int head) {
    return batch * p.mask_heads + head / p.heads_per_mask;
}

__device__ inline int section_of(const BackwardProblem& p) {
    return p.deterministic ? heads_at_once(p.schedule, p.lags[0], p.lags[1], gridDim.x) : p.schedule.section;
}

/// A whole warp takes the next item off the list.
__device__ inline BackwardItem next_backward_item(const BackwardProblem& p, int section) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (;;) {
        unsigned index = 0;
        if (lane == 0) index = atomicAdd(p.next, 1u);
        index = __shfl_sync(all_lanes, index, 0);
        if (index >= p.schedule.items()) return {.batch = 0, .kv_head = -1, .pair = 0, .slots = 0};
        const Scheduled x = scheduled(p.schedule, section, index);
        // A key/value head belongs to the mask head of its first query head.
        const int mask_head = x.slice % p.mask_heads,
                  kv_head = (mask_head * p.heads_per_mask + p.group - 1) / p.group + x.kv_head;
        if (kv_head >= p.kv_heads || kv_head * p.group >= (mask_head + 1) * p.heads_per_mask) continue;
        BackwardItem item{.batch = x.slice / p.mask_heads, .kv_head = kv_head, .pair = x.pair, .slots = 0};
        for (int head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head)
            for (int w = lane; w < p.column_words; w += 32) {
                const PairBits bits(p, slice_of(p, item.batch, head), item.pair, w);
                item.slots += __popc(bits.active[0] | bits.active[1]);
            }
        item.slots = __reduce_add_sync(all_lanes, item.slots);
        return item;
    }
}

/// A whole warp visits an item's blocks of rows, head by head, the first rows first: visit(head, row block, Slot).
template <typename Visit>
__device__ __forceinline__ void for_each_slot(const BackwardProblem& p, const BackwardItem& item, Visit&& visit) {
    if (item.slots == 0) return;
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int head = item.kv_head * p.group; head < (item.kv_head + 1) * p.group; ++head) {
        const int slice = slice_of(p, item.batch, head);
        for (int first = 0; first < p.column_words; first += 32) {
            const PairBits bits(p, slice, item.pair, first + lane);
            for (unsigned lanes = __ballot_sync(all_lanes, (bits.active[0] | bits.active[1]) != 0); lanes != 0;
                 lanes &= lanes - 1) {
                const int from = __ffs(static_cast<int>(lanes)) - 1;
                const uint32_t active[2] = {__shfl_sync(all_lanes, bits.active[0], from),
                                            __shfl_sync(all_lanes, bits.active[1], from)},
                               partial[2] = {__shfl_sync(all_lanes, bits.partial[0], from),
                                             __shfl_sync(all_lanes, bits.partial[1], from)};
                for (uint32_t rest = active[0] | active[1]; rest != 0; rest &= rest - 1) {
                    const int bit = __ffs(static_cast<int>(rest)) - 1, block = (first + from) * 32 + bit;
                    const uint32_t tiles = (active[0] >> bit & 1) | (active[1] >> bit & 1) << 1 |
                                           (partial[0] >> bit & 1) << 2 | (partial[1] >> bit & 1) << 3;
                    visit(head, block, Slot{static_cast<int>(tiles), block * block_rows, slice});
                }
            }
        }
    }
}

template <int head_dim>
struct BackwardCta {
    using L = BackwardLayout<head_dim>;
    const BackwardProblem& problem;
    const BackwardMaps& maps;
    char* memory;
    uint32_t address;

    __device__ uint32_t barrier(int index) const { return address + L::barriers + 8 * static_cast<uint32_t>(index); }
    __device__ uint32_t rows(int first, uint32_t stage) const {
        return address + static_cast<uint32_t>(first) + stage * L::row_bytes;
    }
    __device__ uint32_t statistics(uint32_t stage) const {
        return address + L::statistics + stage * L::statistics_bytes;
    }
    __device__ Slot* slot(uint32_t stage) const { return reinterpret_cast<Slot*>(memory + L::slot) + stage; }
    __device__ BackwardItem* item(uint32_t n) const {
        return reinterpret_cast<BackwardItem*>(memory + L::items) + n % 2;
    }

    /// Item n of this CTA, for a whole warp.
    __device__ BackwardItem read_item(uint32_t n) const {
        wait(barrier(L::item_full + n % 2), n / 2 & 1);
        const BackwardItem read = *item(n);
        arrive_as_warp(barrier(L::item_empty + n % 2), threadIdx.x % 32);
        return read;
    }

    __device__ void initialise() const {
        if (threadIdx.x == 0) {
            init_barrier(barrier(L::keys_full), 1);
            init_barrier(barrier(L::keys_empty), 2);  // a thread of each warpgroup
            for (int i = 0; i < 2; ++i) {
                // The warps of one warpgroup, or of both.
                init_barrier(barrier(L::sums_full + i), 4 * L::slabs * arrivals_of_warp);
                init_barrier(barrier(L::sums_empty + i), 1);
                init_barrier(barrier(L::item_full + i), 1);
                // Those that add sums, all that compute.
                init_barrier(barrier(L::item_empty + i), (2 + 8) * arrivals_of_warp);
            }
            for (int i = 0; i < L::stages; ++i) {
                init_barrier(barrier(L::full + i), 1);
                init_barrier(barrier(L::empty + i), 8 * arrivals_of_warp);  // all warps that compute
            }
            publish_barriers();
        }
        __syncthreads();
    }

    /// Takes item n and tells the others. Late, when all of item n - 1 is on its way: taken earlier, long items would keep
    /// short ones waiting that other CTAs could do.
    __device__ BackwardItem take_item(uint32_t n, int section) const {
        wait(barrier(L::item_empty + n % 2), (n / 2 & 1) ^ 1);
        const BackwardItem next = next_backward_item(problem, section);
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
        arrive_expecting(full, 2 * L::key_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            const uint32_t to = address + slab * L::key_slab;
            const int column = item.pair * item_columns;
            load_slab(to + L::k, &maps.k, full, 64 * slab, item.kv_head, column, item.batch, evict_first);
            load_slab(to + L::v, &maps.v, full, 64 * slab, item.kv_head, column, item.batch, evict_first);
        }
    }

    __device__ void load_rows(const BackwardItem& item, uint32_t n, int head, int block, const Slot& what) const {
        const uint32_t stage = n % L::stages, full = barrier(L::full + static_cast<int>(stage));
        wait(barrier(L::empty + static_cast<int>(stage)), (n / L::stages & 1) ^ 1);
        *slot(stage) = what;
        arrive_expecting(full, 2 * L::row_bytes + L::statistics_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab) {
            load_slab(rows(L::q, stage) + slab * L::row_slab, &maps.q, full, 64 * slab, head, what.first_row,
                      item.batch, evict_last);
            load_slab(rows(L::dout, stage) + slab * L::row_slab, &maps.dout, full, 64 * slab, head, what.first_row,
                      item.batch, evict_last);
        }
        load_bytes(statistics(stage), problem.statistics + of_block(item.batch, head, block) * statistics_of_block,
                   L::statistics_bytes, full);
    }

    /// The place of a block of rows in what scratch holds.
    __device__ int64_t of_block(int batch, int head, int block) const {
        return (static_cast<int64_t>(batch) * problem.heads + head) * problem.row_blocks + block;
    }

    /// Keys and values come after the first rows, whose places are free while the item before is still being written.
    __device__ void load() const {
        const bool leader = threadIdx.x % 32 == 0;
        if (leader) {
            prefetch_map(&maps.q), prefetch_map(&maps.k), prefetch_map(&maps.v), prefetch_map(&maps.dout);
            prefetch_map(&maps.dk), prefetch_map(&maps.dv);
        }
        const int section = section_of(problem);
        uint32_t slots = 0;
        for (uint32_t n = 0;; ++n) {
            const BackwardItem item = take_item(n, section);
            if (item.kv_head < 0) return;
            int before_keys = min(item.slots, L::stages);
            if (leader && before_keys == 0) load_keys(item, n);
            for_each_slot(problem, item, [&](int head, int block, const Slot& what) {
                if (leader) {
                    load_rows(item, slots, head, block, what);
                    if (--before_keys == 0) load_keys(item, n);
                }
                ++slots;
                __syncwarp();
            });
            __syncwarp();
        }
    }

    /// How many items add to these rows before this one does.
    __device__ uint32_t turn_of(const BackwardItem& item, int block, int slice) const {
        const uint32_t* words =
            problem.row_active + (static_cast<int64_t>(slice) * problem.row_blocks + block) * problem.row_words;
        uint32_t before = 0;
        for (int w = static_cast<int>(threadIdx.x % 32); w < problem.row_words; w += 32)
            before += __popc(later_pairs(words[w], w, item.pair));
        return __reduce_add_sync(all_lanes, before);
    }

    /// Adds what the warpgroups leave in a place of `sums` to those of scratch, for every other block of rows: while one
    /// warp waits for its turn, or until its addition is through, the other goes on.
    __device__ void add_sums(uint32_t place) const {
        const bool leader = threadIdx.x % 32 == 0;
        uint32_t slots = 0;
        for (uint32_t n = 0;; ++n) {
            const BackwardItem item = read_item(n);
            if (item.kv_head < 0) break;
            for_each_slot(problem, item, [&](int head, int block, const Slot& what) {
                const uint32_t slot = slots++;
                if (slot % 2 != place) return;
                const int64_t at = of_block(item.batch, head, block);
                const uint32_t turn = problem.deterministic ? turn_of(item, block, what.slice) : 0;
                if (leader) {
                    if (problem.deterministic) wait_ticket(problem.tickets + at, turn);
                    wait(barrier(L::sums_full + place), slot / 2 & 1);
                    add_floats(problem.sums + at * L::slabs * sum_block, address + L::sums + place * L::sums_bytes,
                               L::sums_bytes);
                    commit_stores();
                    wait_stores_read();
                    arrive(barrier(L::sums_empty + place));
                    if (problem.deterministic) {
                        wait_stores();
                        pass_ticket(problem.tickets + at);
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
