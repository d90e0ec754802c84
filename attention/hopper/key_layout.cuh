#pragma once
// Shared memory and barriers of the Hopper kernels that keep keys: backward.cu for head dims 64 and 128, wide_keys.cu
// for 256. The first warpgroup of a CTA feeds it, two compute 64 keys each.

#include "attention/hopper/key_work.cuh"

namespace colonnade::hopper {

struct KeyShape {
    int head_dim;
    bool values;      ///< V stays in shared memory as well as K
    int stages;       ///< buffers for Q and statistics of a block of rows
    int dout_stages;  ///< buffers for dO with barriers of their own; 0: dO shares the stages and barriers of Q
    bool sums;        ///< dS and the sums of dQ pass through shared memory
};

template <KeyShape shape>
struct KeyLayout {
    static constexpr int head_dim = shape.head_dim, slabs = head_dim / 64, stages = shape.stages,
                         own_dout = shape.dout_stages, dout_stages = own_dout > 0 ? own_dout : stages;
    static constexpr bool values = shape.values, has_sums = shape.sums;
    static constexpr int threads = 384;
    static constexpr int feeder_registers = 56, consumer_registers = 224;  // 168 each at launch; 40 spill

    // Sizes in bytes.
    static constexpr int key_slab = item_columns * 128, key_bytes = slabs * key_slab, row_slab = block_rows * 128,
                         row_bytes = slabs * row_slab, score_slab = 64 * 128, score_bytes = 2 * score_slab,
                         sum_bytes = sum_block * 4, sums_bytes = slabs * sum_bytes,
                         statistics_bytes = statistics_of_block * 4;
    // Offsets in bytes from the start of shared memory, which the kernels declare 1024-byte aligned. dS and sums of dQ
    // have two buffers each: `ds` of two slabs [64 keys][64 rows], `sums` laid out as in scratch.
    static constexpr int k = 0, v = k + key_bytes, q = values ? v + key_bytes : v, dout = q + stages * row_bytes,
                         ds = dout + dout_stages * row_bytes, sums = has_sums ? ds + 2 * score_bytes : ds,
                         statistics = has_sums ? sums + 2 * sums_bytes : sums,
                         slot = statistics + stages * statistics_bytes, items = slot + stages * 16,
                         barriers = items + 2 * 32;
    // Indices of barriers.
    static constexpr int keys_full = 0, keys_empty = 1, sums_full = 2, sums_empty = has_sums ? 4 : 2,
                         item_full = has_sums ? 6 : 2, item_empty = item_full + 2, full = item_empty + 2,
                         empty = full + stages, dout_full = empty + stages, dout_empty = dout_full + own_dout,
                         barrier_count = dout_empty + own_dout;
    static constexpr int bytes = barriers + 8 * barrier_count;
    static_assert(sizeof(Slot) == 16 && sizeof(BackwardItem) == 32 && barriers % 8 == 0 && bytes <= 232448);
};

}  // namespace colonnade::hopper
