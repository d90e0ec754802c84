#pragma once
// Clusters on sm_90a: CTAs that run at the same time, load for each other and arrive at each other's barriers. Ranks count
// from 0 within a one-dimensional cluster. The same variable lies at the same address in every CTA's shared memory.

#include "engine/device/hopper/ptx.cuh"

namespace colonnade::hopper {

__device__ inline uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
/// All threads of all CTAs, by whole warps: barriers are initialised, or nobody needs another's shared memory any more.
__device__ inline void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// At the barrier of the CTA of that rank which lies where `barrier` does here.
__device__ inline void arrive_at(uint32_t barrier, uint32_t rank) {
    asm volatile(
        "{\n\t.reg .b32 there;\n\tmapa.shared::cluster.u32 there, %0, %1;\n\t"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n\t}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}
/// load_box() into every CTA whose rank is among the bits of `ranks`, at the same addresses, and announced to the barrier
/// of each. It may come before that CTA expects it, not before the place is free there.
__device__ inline void load_box_to_all(uint32_t to, const CUtensorMap* map, uint32_t barrier, int column, int row,
                                       uint16_t ranks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
        "l"(map), "r"(barrier), "r"(column), "r"(row), "h"(ranks)
        : "memory");
}

}  // namespace colonnade::hopper
