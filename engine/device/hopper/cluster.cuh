#pragma once
// Clusters on sm_90a: CTAs that run at the same time, load data for each other and arrive at each other's barriers.
// Ranks count from 0 within a one-dimensional cluster. A variable has the same address in every CTA's shared memory.

#include "engine/device/hopper/ptx.cuh"

namespace colonnade::hopper {

__device__ inline uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
/// Called by all threads of all CTAs, in whole warps: after barriers are initialised, and before a CTA whose shared
/// memory others use may end.
__device__ inline void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// Arrives at the barrier at the same shared-memory address in the CTA with that cluster rank.
__device__ inline void arrive_at(uint32_t barrier, uint32_t rank) {
    asm volatile(
        "{\n\t.reg .b32 there;\n\tmapa.shared::cluster.u32 there, %0, %1;\n\t"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n\t}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}
/// load_box() into every CTA whose rank is set in the bit mask `ranks`, at the same addresses; the barrier of each
/// counts the bytes. The data may arrive before that CTA expects it, but the destination must be free there.
__device__ inline void load_box_to_all(uint32_t to, const CUtensorMap* map, uint32_t barrier, int column, int row,
                                       uint16_t ranks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
        "l"(map), "r"(barrier), "r"(column), "r"(row), "h"(ranks)
        : "memory");
}

}  // namespace colonnade::hopper
