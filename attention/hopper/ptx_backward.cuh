#pragma once
// What the backward needs of sm_90a beside ptx.cuh: products of [64, 64] with transposed operands, bulk copies and bulk
// sums, tickets in global memory.

#include "attention/hopper/ptx.cuh"

namespace colonnade::hopper {

/// d (+)= A B, d [64, 64] over a warpgroup, both operands in shared memory: K-major, or MN-major where said so.
template <bool a_mn_major, bool b_mn_major>
__device__ inline void multiply_shared(float (&d)[32], uint64_t a, uint64_t b, bool accumulate) {
    asm volatile(
        "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %34, 0;\n\t"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, p, 1, 1, %35, %36;\n\t}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
          "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
          "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
          "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(a_mn_major)),
          "n"(static_cast<int>(b_mn_major)));
}

/// One thread. `bytes` and both addresses are multiples of 16.
__device__ inline void load_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}
/// One thread, after what every writer of `from` fenced is known to it: to[i] += from[i], each sum on its own atomic.
/// Joins the thread's batch of stores, see commit_stores().
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

/// Until the ticket in global memory shows `turn`; what earlier holders stored by TMA before they passed it on is seen.
/// Traps after minutes, in PTX for the reason that wait() has.
__device__ inline void wait_ticket(const uint32_t* ticket, uint32_t turn) {
    asm volatile(
        "{\n\t.reg .pred done, again;\n\t.reg .u32 tries, shown;\n\tmov.u32 tries, 0;\n\t"
        "TRY:\n\tld.acquire.gpu.global.u32 shown, [%0];\n\tsetp.eq.u32 done, shown, %1;\n\t@done bra DONE;\n\t"
        "nanosleep.u32 40;\n\tadd.u32 tries, tries, 1;\n\tsetp.lt.u32 again, tries, 134217728;\n\t@again bra TRY;\n\t"
        "trap;\n\tDONE:\n\tfence.proxy.async;\n\t}" ::"l"(ticket),
        "r"(turn)
        : "memory");
}
/// After wait_stores().
__device__ inline void pass_ticket(uint32_t* ticket) {
    asm volatile("fence.proxy.async;\n\tred.release.gpu.global.add.u32 [%0], 1;" ::"l"(ticket) : "memory");
}

}  // namespace colonnade::hopper
