#pragma once
// Shared memory and barriers of the Hopper kernels that keep query rows: the forward pass (forward.cu) and dQ of wide
// heads (wide_rows.cu). The first warpgroup of a CTA feeds it, the others compute 64 rows each.

#include "attention/hopper/mask_words.h"
#include "attention/hopper/work.cuh"

namespace colonnade::hopper {

struct RowShape {
    int head_dim;
    int warpgroups;        ///< that compute
    int tile_columns;      ///< 64 or 128
    int q_places;          ///< buffers for the queries of an item; its results leave through the same buffer
    int stages, v_stages;  ///< buffers for keys, for values
    bool gradient;         ///< also loads dO
    int feeder_registers, consumer_registers;  ///< per thread
};

template <RowShape shape>
struct RowLayout {
    static constexpr bool gradient = shape.gradient;
    static constexpr int head_dim = shape.head_dim, slabs = head_dim / 64, warpgroups = shape.warpgroups,
                         tile_rows = 64 * warpgroups, tile_columns = shape.tile_columns,
                         threads = 128 * (1 + warpgroups);
    static constexpr int q_places = shape.q_places, stages = shape.stages, v_stages = shape.v_stages;
    static constexpr int feeder_registers = shape.feeder_registers, consumer_registers = shape.consumer_registers;
    static_assert(128 * (feeder_registers + warpgroups * consumer_registers) <= 65536);

    // Sizes in bytes; mask words are those of one warpgroup.
    static constexpr int q_slab_bytes = tile_rows * 128, q_bytes = slabs * q_slab_bytes,
                         slab_bytes = tile_columns * 128, tile_bytes = slabs * slab_bytes,
                         words_of_warpgroup = mask_words(tile_columns),
                         words_bytes = warpgroups * words_of_warpgroup * 4;
    // Offsets in bytes from a 1024-byte boundary.
    static constexpr int q = 0, dout = q + q_places * q_bytes, k = dout + (gradient ? q_bytes : 0),
                         v = k + stages * tile_bytes, words = v + v_stages * tile_bytes,
                         masks = words + stages * words_bytes, items = masks + stages * 4, barriers = items + 2 * 32;
    // Indices of barriers.
    static constexpr int q_full = 0, q_empty = q_places, out_full = 2 * q_places,
                         item_full = out_full + q_places * warpgroups, item_empty = item_full + 2,
                         k_full = item_empty + 2, k_empty = k_full + stages, v_full = k_empty + stages,
                         v_empty = v_full + v_stages, barrier_count = v_empty + v_stages;
    static constexpr int bytes = barriers + 8 * barrier_count;
    static_assert(bytes <= 232448 && sizeof(Item) <= 32 && items % 8 == 0 && barriers % 8 == 0);
};

}  // namespace colonnade::hopper
