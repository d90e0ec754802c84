#pragma once
// The feeding side of the Hopper kernels that keep query rows: four warps fill and empty the shared memory of a CTA
// while two or three warpgroups compute. L is a RowLayout.

#include "attention/hopper/mask_words.h"
#include "attention/hopper/row_layout.cuh"
#include "attention/hopper/warps.cuh"
#include "attention/hopper/work.cuh"

namespace colonnade::hopper {

struct RowProblem {
    Work work;
    float* lse = nullptr;               ///< output of the forward pass
    const float* statistics = nullptr;  ///< input of dQ, see BackwardProblem
    const int4* bounds;                 ///< GpuTilePlan::bounds
    int rows, columns, heads, group;    ///< group: query heads per key/value head
    int padded_columns;
    bool causal;
    float scale;
    const int* positions;  ///< GpuTilePlan::positions; null if the mask has no window of positions
    int window;            ///< of the positions
};

/// `out` receives the outputs of the forward pass or dQ; only dQ reads `dout`.
struct RowMaps {
    CUtensorMap q, k, v, out, dout{};
};

/// How much of a tile is hidden from a warpgroup, two bits per warpgroup: nothing, the elements that mask words give
/// (mask_words.h), or everything.
enum TileMask : int { unmasked = 0, by_words = 1, closed = 2 };

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <typename Layout>
struct RowCta {
    using L = Layout;
    const RowProblem& problem;
    const RowMaps& maps;
    char* memory;
    uint32_t address;

    __device__ uint32_t barrier(int index) const { return address + L::barriers + 8 * static_cast<uint32_t>(index); }
    __device__ uint32_t queries(uint32_t n) const { return address + L::q + n % L::q_places * L::q_bytes; }
    __device__ uint32_t keys(uint32_t stage) const { return address + L::k + stage * L::tile_bytes; }
    __device__ uint32_t values(uint32_t stage) const { return address + L::v + stage * L::tile_bytes; }
    __device__ Item* item(uint32_t n) const { return reinterpret_cast<Item*>(memory + L::items + 32 * (n % 2)); }
    /// TileMask of each warpgroup.
    __device__ int* mask(uint32_t stage) const { return reinterpret_cast<int*>(memory + L::masks) + stage; }
    __device__ uint32_t* words(uint32_t stage, int warpgroup) const {
        return reinterpret_cast<uint32_t*>(memory + L::words + stage * L::words_bytes) +
               warpgroup * L::words_of_warpgroup;
    }

    /// Returns item n of this CTA to a whole warp, which may read it until it returns it.
    __device__ const Item& take_item(uint32_t n) const {
        wait(barrier(L::item_full + n % 2), n / 2 & 1);
        return *item(n);
    }
    __device__ void return_item(uint32_t n) const { arrive_as_warp(barrier(L::item_empty + n % 2), threadIdx.x % 32); }
    __device__ Item read_item(uint32_t n) const {
        const Item read = take_item(n);
        return_item(n);
        return read;
    }

    /// The kernel. The first warpgroup feeds, one task per warp; the others compute.
    template <typename Consumer>
    __device__ void run() const {
        initialise();
        if (threadIdx.x < 128) {
            give_registers<L::feeder_registers>();
            const int warp = uniform(static_cast<int>(threadIdx.x) / 32);
            if (warp == 0)
                load();
            else if (warp == 1)
                mask();
            else if (warp == 2)
                schedule();
            else
                store();
        } else {
            take_registers<L::consumer_registers>();
            Consumer(*this).run();
        }
    }

    __device__ void initialise() const {
        if (threadIdx.x == 0) {
            for (int i = 0; i < L::q_places; ++i) {
                init_barrier(barrier(L::q_full + i), 1);
                init_barrier(barrier(L::q_empty + i), 1);
                for (int w = 0; w < L::warpgroups; ++w)
                    init_barrier(barrier(L::out_full + i * L::warpgroups + w), 4 * arrivals_of_warp);
            }
            for (int i = 0; i < 2; ++i) {
                init_barrier(barrier(L::item_full + i), 1);
                init_barrier(barrier(L::item_empty + i), (3 + 4 * L::warpgroups) * arrivals_of_warp);
            }
            for (int i = 0; i < L::stages; ++i) {
                init_barrier(barrier(L::k_full + i), 1 + 32);  // keys; every lane that wrote the mask
                init_barrier(barrier(L::k_empty + i), 4 * L::warpgroups * arrivals_of_warp);
            }
            for (int i = 0; i < L::v_stages; ++i) {
                init_barrier(barrier(L::v_full + i), 1);
                init_barrier(barrier(L::v_empty + i), 4 * L::warpgroups * arrivals_of_warp);
            }
            publish_barriers();
        }
        __syncthreads();
    }

    __device__ void schedule() const {
        for (uint32_t n = 0;; ++n) {
            wait(barrier(L::item_empty + n % 2), (n / 2 & 1) ^ 1);
            const Item next = next_item<L::warpgroups, L::tile_columns>(problem.work);
            if (threadIdx.x % 32 == 0) {
                *item(n) = next;
                arrive(barrier(L::item_full + n % 2));
            }
            if (next.head < 0) return;
        }
    }

    template <int slab_bytes>
    __device__ void load_tile(const CUtensorMap& map, uint32_t to, uint32_t full, int head, int row, int batch,
                              uint64_t policy) const {
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab)
            load_slab(to + slab * slab_bytes, &map, full, 64 * slab, head, row, batch, policy);
    }

    __device__ __forceinline__ void load_queries(const Item& item, uint32_t n) const {
        const uint32_t full = barrier(L::q_full + n % L::q_places);
        wait(barrier(L::q_empty + n % L::q_places), (n / L::q_places & 1) ^ 1);
        if (item.tiles > 0) {
            arrive_expecting(full, (L::gradient ? 2 : 1) * L::q_bytes);
            load_tile<L::q_slab_bytes>(maps.q, queries(n), full, item.head, item.first_row, item.batch, evict_first);
            if constexpr (L::gradient)
                load_tile<L::q_slab_bytes>(maps.dout, address + L::dout, full, item.head, item.first_row, item.batch,
                                           evict_first);
        } else {
            arrive(full);
        }
    }
    __device__ __forceinline__ void load_keys(const Item& item, int kv_head, uint32_t t, int column) const {
        const uint32_t stage = t % L::stages, full = barrier(L::k_full + stage);
        wait(barrier(L::k_empty + stage), (t / L::stages & 1) ^ 1);
        arrive_expecting(full, L::tile_bytes);
        load_tile<L::slab_bytes>(maps.k, keys(stage), full, kv_head, column, item.batch, evict_last);
    }
    __device__ __forceinline__ void load_values(const Item& item, int kv_head, uint32_t t, int column) const {
        const uint32_t stage = t % L::v_stages, full = barrier(L::v_full + stage);
        wait(barrier(L::v_empty + stage), (t / L::v_stages & 1) ^ 1);
        arrive_expecting(full, L::tile_bytes);
        load_tile<L::slab_bytes>(maps.v, values(stage), full, kv_head, column, item.batch, evict_last);
    }

    /// In the forward pass values follow one tile behind the keys, because consumers free the stages in that order.
    __device__ void load() const {
        const bool leader = threadIdx.x % 32 == 0;
        if (leader) prefetch_map(&maps.q), prefetch_map(&maps.k), prefetch_map(&maps.v);
        if constexpr (L::gradient)
            if (leader) prefetch_map(&maps.dout);
        uint32_t tiles = 0;
        for (uint32_t n = 0;; ++n) {
            const Item item = read_item(n);
            if (item.head < 0) return;
            const int kv_head = item.head / problem.group;
            // A single buffer is free only after the outputs of the previous item have left. Keys need not wait for
            // that.
            const bool keys_first = L::q_places == 1 && item.tiles > 0;
            if (leader && !keys_first) load_queries(item, n);
            int before = -1;  // column of the previous tile
            for_each_tile<L::warpgroups, L::tile_columns>(problem.work, item, [&](int column, bool) {
                if (leader) {
                    load_keys(item, kv_head, tiles, column);
                    if (L::gradient) load_values(item, kv_head, tiles, column);
                    if (before < 0 && keys_first) load_queries(item, n);
                    if (before >= 0 && !L::gradient) load_values(item, kv_head, tiles - 1, before);
                }
                before = column;
                ++tiles;
                __syncwarp();
            });
            if (leader && before >= 0 && !L::gradient) load_values(item, kv_head, tiles - 1, before);
            __syncwarp();
        }
    }

    /// Lane 2 j + e makes the words of columns 8 j + 2 i + e of the tile, i < 4. With 64 columns lanes 16 to 31 make
    /// those of the second 32 rows of each warpgroup.
    __device__ void mask() const {
        constexpr int lanes = mask_lanes(L::tile_columns), words_of_lane = L::words_of_warpgroup / 32;
        uint32_t tiles = 0;
        for (uint32_t n = 0;; ++n) {
            const Item item = read_item(n);
            if (item.head < 0) return;
            const auto rows_of = [&](int4 x) { return HiddenRows(x.x, x.y, x.z, x.w, item.first_row); };
            // The causal rule hides rows before column - past of the tile; without the rule it is no row.
            const int past = problem.causal ? problem.columns - problem.rows + item.first_row : 1 << 30;
            int beyond = 0;  // closed to warpgroups after the last row
            for (int w = 1; w < L::warpgroups; ++w)
                if (item.first_row + 64 * w >= problem.rows) beyond |= closed << 2 * w;
            for_each_tile<L::warpgroups, L::tile_columns>(problem.work, item, [&](int column, bool masked) {
                const uint32_t stage = tiles % L::stages, free = (tiles / L::stages & 1) ^ 1;
                const int lane = lane_anew();
                int kinds = beyond;
                if (masked) {
                    const int first = column + lane % lanes / 2 * 8 + lane % 2;
                    const int4* bounds =
                        problem.bounds + static_cast<int64_t>(item.sheet) * problem.padded_columns + first;
                    const HiddenRows hidden[4] = {rows_of(bounds[0]), rows_of(bounds[2]), rows_of(bounds[4]),
                                                  rows_of(bounds[6])};
                    wait(barrier(L::k_empty + stage), free);
#pragma unroll 1
                    for (int w = 0; w < L::warpgroups; ++w) {
                        uint32_t some = 0, all = ~0u;
                        uint32_t* to = words(stage, w) + lane % lanes;
#pragma unroll
                        for (int n = 0; n < words_of_lane / 4; ++n)
#pragma unroll
                            for (int i = 0; i < 4; ++i) {
                                const int h = lanes == 32 ? n : lane / lanes;
                                const uint32_t word = hidden[i].word(64 * w + 32 * h, first + 2 * i - past);
                                to[(4 * h + i) * lanes] = word;
                                some |= word, all &= word;
                            }
                        if (__all_sync(whole_warp, all == ~0u))
                            kinds |= closed << 2 * w;
                        else if (__any_sync(whole_warp, some != 0))
                            kinds |= by_words << 2 * w;
                    }
                    if (problem.positions) kinds = beyond | add_past_window(item, column, stage);
                } else {
                    wait(barrier(L::k_empty + stage), free);
                }
                if (lane == 0) *mask(stage) = kinds;
                arrive(barrier(L::k_full + stage));
                ++tiles;
            });
        }
    }

    /// Sets the bits of rows past the columns' windows in the mask words that the lane has written. Returns the TileMask
    /// of each warpgroup.
    __device__ __forceinline__ int add_past_window(const Item& item, int column, uint32_t stage) const {
        constexpr int lanes = mask_lanes(L::tile_columns);
        const int* positions = problem.positions + static_cast<int64_t>(item.batch) * problem.padded_columns;
        const int lane = lane_anew();
        int kinds = 0;
#pragma unroll 1
        for (int w = 0; w < L::warpgroups; ++w) {
            uint32_t some = 0, all = ~0u;
#pragma unroll 1
            for (int h = 0; h < 2; ++h) {
                const int row = item.first_row + 64 * w + 32 * h + lane;
                const bool exists = row < problem.rows;
                const int position = exists ? __ldg(positions + row) : 0;
                const int before = __shfl_up_sync(whole_warp, position, 1);
                // Runs of rows whose positions rise by one, one after the other.
                uint32_t past[4] = {};
                for (uint32_t starts = __ballot_sync(whole_warp, exists && position != before + 1) | 1; starts != 0;) {
                    const int begin = __ffs(static_cast<int>(starts)) - 1;
                    starts &= starts - 1;
                    const int end = starts != 0 ? __ffs(static_cast<int>(starts)) - 1 : 32;
                    const int of_run = __shfl_sync(whole_warp, position, begin);
                    const int* keys = positions + column + lane % lanes / 2 * 8 + lane % 2;
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        past[i] |= past_window(begin, end, of_run, __ldg(keys + 2 * i) + problem.window);
                }
                if (lanes < 32 && lane / lanes != h) continue;  // the other half of the warp has these words
                uint32_t* to = words(stage, w) + 4 * h * lanes + lane % lanes;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    past[i] |= to[i * lanes];
                    to[i * lanes] = past[i];
                    some |= past[i], all &= past[i];
                }
            }
            if (__all_sync(whole_warp, all == ~0u))
                kinds |= closed << 2 * w;
            else if (__any_sync(whole_warp, some != 0))
                kinds |= by_words << 2 * w;
        }
        return kinds;
    }

    __device__ void store() const {
        const bool leader = threadIdx.x % 32 == 0;
        for (uint32_t n = 0;; ++n) {
            const Item item = read_item(n);
            if (item.head < 0) break;
            if (leader) {
                for (int w = 0; w < L::warpgroups; ++w) {
                    const int row = item.first_row + 64 * w;
                    wait(barrier(L::out_full + static_cast<int>(n % L::q_places) * L::warpgroups + w),
                         n / L::q_places & 1);
                    if (row < problem.rows)
                        for (int slab = 0; slab < L::slabs; ++slab)
                            store_slab(&maps.out, queries(n) + slab * L::q_slab_bytes + w * 64 * 128, 64 * slab,
                                       item.head, row, item.batch);
                    commit_stores();
                }
                wait_stores_read();
                arrive(barrier(L::q_empty + n % L::q_places));
            }
            __syncwarp();
        }
        if (leader) wait_stores();
    }
};

#endif

}  // namespace colonnade::hopper
