#pragma once
// sm_90a instructions of the backward pass in addition to ptx.cuh: bulk copies, bulk sums, and tickets in global
// memory.

#include "engine/device/hopper/ptx.cuh"

namespace colonnade::hopper {

/// One thread. `bytes` and both addresses are multiples of 16.
__device__ inline void load_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}
/// to[i] += from[i], each sum atomic. Called by one thread after a barrier with all writers of `from`, which called
/// fence_async() before it. Belongs to the thread's batch of stores, see commit_stores().
__device__ inline void add_floats(float* to, uint32_t from, uint32_t bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from),
                 "r"(bytes)
                 : "memory");
}

__device__ inline void store_shared(uint32_t to, float x, float y, float z, float w) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
}
__device__ inline float2 load_shared_pair(uint32_t from) {
    float2 r;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(r.x), "=f"(r.y) : "r"(from) : "memory");
    return r;
}

/// Waits until the ticket in global memory shows `turn`. Stores by TMA of earlier holders are then visible. Traps after
/// minutes; written in PTX for the same reason as wait().
__device__ inline void wait_ticket(const uint32_t* ticket, uint32_t turn) {
    asm volatile(
        "{\n\t.reg .pred done, again;\n\t.reg .u32 tries, shown;\n\tmov.u32 tries, 0;\n\t"
        "TRY:\n\tld.acquire.gpu.global.u32 shown, [%0];\n\tsetp.eq.u32 done, shown, %1;\n\t@done bra DONE;\n\t"
        "nanosleep.u32 40;\n\tadd.u32 tries, tries, 1;\n\tsetp.lt.u32 again, tries, 134217728;\n\t@again bra TRY;\n\t"
        "trap;\n\tDONE:\n\tfence.proxy.async;\n\t}" ::"l"(ticket),
        "r"(turn)
        : "memory");
}
/// Call after wait_stores().
__device__ inline void pass_ticket(uint32_t* ticket) {
    asm volatile("fence.proxy.async;\n\tred.release.gpu.global.add.u32 [%0], 1;" ::"l"(ticket) : "memory");
}

}  // namespace colonnade::hopper
