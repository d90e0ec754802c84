#pragma once
// The side of Hopper's forward kernel that feeds: how a CTA's shared memory is laid out, and the four warps that fill
// and empty it while two warpgroups compute (forward.cu).

#include "attention/hopper/mask_words.h"
#include "attention/hopper/ptx.cuh"
#include "attention/hopper/work.cuh"

namespace colonnade::hopper {

constexpr int warpgroups = 2, warpgroup_rows = tile_rows / warpgroups, forward_threads = 128 * (1 + warpgroups);
constexpr int feeder_registers = 40, consumer_registers = 232;  // 168 each at launch

struct ForwardProblem {
    Work work;
    float* lse;
    const int4* bounds;
    int rows, columns, heads, group;  // group: query heads per key/value head
    int padded_columns;
    bool causal;
    float scale;
};

struct ForwardMaps {
    CUtensorMap q, k, v, out;
};

/// How the mask warp describes a tile to the warpgroups that compute.
struct TileMask {
    int kinds;        // two bits for each warpgroup
    int causal_from;  // first row of the tile - its first column, on aligned positions
};
constexpr int by_words = 1, by_causality = 2;

/// Shared memory: bytes from a 1024-byte boundary on.
template <int head_dim>
struct ForwardLayout {
    static constexpr int stages = head_dim == 64 ? 4 : 2, slabs = head_dim / 64, slab_bytes = tile_rows * 128,
                         tile_bytes = slabs * slab_bytes, words_bytes = tile_columns * 4;
    static constexpr int q = 0, k = q + 2 * tile_bytes, v = k + stages * tile_bytes, words = v + stages * tile_bytes,
                         masks = words + stages * words_bytes, items = masks + stages * 8, barriers = items + 2 * 32;
    // Barriers, indices
    static constexpr int q_full = 0, q_empty = 2, out_full = 4, item_full = 8, item_empty = 10, k_full = 12,
                         k_empty = k_full + stages, v_full = k_empty + stages, v_empty = v_full + stages,
                         mask_full = v_empty + stages, barrier_count = mask_full + stages;
    static constexpr int bytes = barriers + 8 * barrier_count + 1024;  // and the way to the boundary
    static_assert(tile_rows == tile_columns && sizeof(TileMask) == 8 && sizeof(Item) <= 32 && barriers % 8 == 0);
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <int head_dim>
struct ForwardCta {
    using L = ForwardLayout<head_dim>;
    const ForwardProblem& problem;
    const ForwardMaps& maps;
    char* memory;
    uint32_t address;

    __device__ uint32_t barrier(int index) const { return address + L::barriers + 8 * static_cast<uint32_t>(index); }
    __device__ uint32_t tile(int first, uint32_t n) const {
        return address + static_cast<uint32_t>(first) + n * L::tile_bytes;
    }
    __device__ Item* item(uint32_t n) const { return reinterpret_cast<Item*>(memory + L::items + 32 * (n % 2)); }
    __device__ TileMask* mask(uint32_t stage) const { return reinterpret_cast<TileMask*>(memory + L::masks) + stage; }
    __device__ uint32_t* words(uint32_t stage) const {
        return reinterpret_cast<uint32_t*>(memory + L::words) + stage * tile_columns;
    }

    /// Item n of this CTA, for a whole warp.
    __device__ Item read_item(uint32_t n) const {
        wait(barrier(L::item_full + n % 2), n / 2 & 1);
        const Item read = *item(n);
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(barrier(L::item_empty + n % 2));
        return read;
    }

    __device__ void initialise() const {
        if (threadIdx.x == 0) {
            for (int i = 0; i < 2; ++i) {
                init_barrier(barrier(L::q_full + i), 1);
                init_barrier(barrier(L::q_empty + i), 1);
                init_barrier(barrier(L::out_full + i), 4);
                init_barrier(barrier(L::out_full + 2 + i), 4);
                init_barrier(barrier(L::item_full + i), 1);
                init_barrier(barrier(L::item_empty + i), 3 + 4 * warpgroups);
            }
            for (int i = 0; i < L::stages; ++i) {
                init_barrier(barrier(L::k_full + i), 1);
                init_barrier(barrier(L::k_empty + i), 4 * warpgroups);
                init_barrier(barrier(L::v_full + i), 1);
                init_barrier(barrier(L::v_empty + i), 4 * warpgroups);
                init_barrier(barrier(L::mask_full + i), 1);
            }
            publish_barriers();
        }
        __syncthreads();
    }

    __device__ void schedule() const {
        for (uint32_t n = 0;; ++n) {
            wait(barrier(L::item_empty + n % 2), (n / 2 & 1) ^ 1);
            const Item next = next_item(problem.work);
            if (threadIdx.x % 32 == 0) {
                *item(n) = next;
                arrive(barrier(L::item_full + n % 2));
            }
            if (next.head < 0) return;
        }
    }

    __device__ void load_tile(const CUtensorMap& map, uint32_t to, uint32_t full, int head, int row, int batch,
                              uint64_t policy) const {
        arrive_expecting(full, L::tile_bytes);
#pragma unroll
        for (int slab = 0; slab < L::slabs; ++slab)
            load_slab(to + slab * L::slab_bytes, &map, full, 64 * slab, head, row, batch, policy);
    }

    /// Values follow one tile behind the keys, as consumers set stages free in that order.
    __device__ void load() const {
        const bool leader = threadIdx.x % 32 == 0;
        if (leader) prefetch_map(&maps.q), prefetch_map(&maps.k), prefetch_map(&maps.v);
        uint32_t tiles = 0;
        for (uint32_t n = 0;; ++n) {
            const Item item = read_item(n);
            if (item.head < 0) return;
            const int kv_head = item.head / problem.group;
            if (leader) {
                wait(barrier(L::q_empty + n % 2), (n / 2 & 1) ^ 1);
                if (item.tiles > 0)
                    load_tile(maps.q, tile(L::q, n % 2), barrier(L::q_full + n % 2), item.head, item.first_row,
                              item.batch, evict_first);
                else
                    arrive(barrier(L::q_full + n % 2));
            }
            const auto load_values = [&](uint32_t t, int column) {
                const uint32_t stage = t % L::stages;
                wait(barrier(L::v_empty + stage), (t / L::stages & 1) ^ 1);
                load_tile(maps.v, tile(L::v, stage), barrier(L::v_full + stage), kv_head, column, item.batch,
                          evict_last);
            };
            int before = -1;
            for_each_tile(problem.work, item, [&](int column, bool) {
                if (leader) {
                    const uint32_t stage = tiles % L::stages;
                    wait(barrier(L::k_empty + stage), (tiles / L::stages & 1) ^ 1);
                    load_tile(maps.k, tile(L::k, stage), barrier(L::k_full + stage), kv_head, column, item.batch,
                              evict_last);
                    if (before >= 0) load_values(tiles - 1, before);
                }
                before = column;
                ++tiles;
                __syncwarp();
            });
            if (leader && before >= 0) load_values(tiles - 1, before);
            __syncwarp();
        }
    }

    /// Each lane has four columns of the tile.
    __device__ void mask() const {
        const int lane = static_cast<int>(threadIdx.x % 32), past = problem.columns - problem.rows;
        uint32_t tiles = 0;
        for (uint32_t n = 0;; ++n) {
            const Item item = read_item(n);
            if (item.head < 0) return;
            const int4* bounds = problem.bounds + static_cast<int64_t>(item.slice) * problem.padded_columns + lane;
            for_each_tile(problem.work, item, [&](int column, bool masked) {
                uint32_t plain[4], merged[4];
                int kinds = 0;
                bool merges = true;
                if (masked) {
                    unsigned touched = 0;  // bits 0, 1: halves that ranges touch; 2, 3: that the causal rule touches; 4
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int4 x = bounds[column + 32 * i];
                        const int causal_end = problem.causal ? column + 32 * i + lane - past : 0;
                        const TileColumn c(x.x, x.y, x.z, x.w, causal_end, item.first_row);
                        plain[i] = c.plain(), merged[i] = c.merged();
                        touched |= c.ranges_touch(0) | c.ranges_touch(64) << 1 | c.causal_touches(0) << 2 |
                                   c.causal_touches(64) << 3 | !c.merges << 4;
                    }
                    touched = __reduce_or_sync(whole_warp, touched);
                    merges = (touched & 16) == 0;
                    for (int w = 0; w < warpgroups; ++w) {
                        const bool ranges = touched >> w & 1, causal = touched >> (2 + w) & 1;
                        const int kind = (ranges ? by_words : 0) | (causal && !(ranges && merges) ? by_causality : 0);
                        kinds |= kind << 2 * w;
                    }
                }
                const uint32_t stage = tiles % L::stages;
                wait(barrier(L::k_empty + stage), (tiles / L::stages & 1) ^ 1);
                if (masked) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) words(stage)[lane + 32 * i] = merges ? merged[i] : plain[i];
                }
                if (lane == 0) *mask(stage) = {kinds, item.first_row + past - column};
                __syncwarp();
                if (lane == 0) arrive(barrier(L::mask_full + stage));
                ++tiles;
            });
        }
    }

    __device__ void store() const {
        const bool leader = threadIdx.x % 32 == 0;
        for (uint32_t n = 0;; ++n) {
            const Item item = read_item(n);
            if (item.head < 0) break;
            if (leader) {
                for (int w = 0; w < warpgroups; ++w) {
                    const int row = item.first_row + w * warpgroup_rows;
                    wait(barrier(L::out_full + 2 * static_cast<int>(n % 2) + w), n / 2 & 1);
                    if (row < problem.rows)
                        for (int slab = 0; slab < L::slabs; ++slab)
                            store_slab(&maps.out, tile(L::q, n % 2) + slab * L::slab_bytes + w * warpgroup_rows * 128,
                                       64 * slab, item.head, row, item.batch);
                    commit_stores();
                }
                wait_stores_read();
                arrive(barrier(L::q_empty + n % 2));
            }
            __syncwarp();
        }
        if (leader) wait_stores();
    }
};

#endif

}  // namespace colonnade::hopper
