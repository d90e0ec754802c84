#pragma once
// The sm_80 instructions of the portable kernels (PTX ISA: cp.async, ldmatrix, mma), on bf16 tiles in shared memory.
//
// A shared tile has rows of `width` elements (a multiple of 32). Its 16-byte chunks are swizzled by the row, so that
// the eight rows of an 8 x 8 matrix, which one ldmatrix phase reads, are in different banks.
//
// Fragments of mma.m16n8k16, lane l, g = l / 4, t = l % 4:
//     A (16 x 16): a0 = (g, 2t..), a1 = (g + 8, 2t..), a2 = (g, 2t + 8..), a3 = (g + 8, 2t + 8..)
//     B (16 x 8):  b0 = (k = 2t.., n = g), b1 = (k = 2t + 8.., n = g)
//     C (16 x 8):  c0, c1 = (g, 2t..), c2, c3 = (g + 8, 2t..)
// so a pair of C fragments, rounded to bf16, is an A fragment of the next product without any exchange.

#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>

namespace colonnade::portable {

__device__ inline uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// Element offset of (row, column) in a swizzled tile of `width` columns; column is a multiple of 8 for the address of
/// a chunk.
template <int width>
__device__ inline int swizzled(int row, int column) {
    static_assert(width % 32 == 0);
    // 64 columns are a full line of 32 banks: eight chunks, permuted by the row. A line of 32 columns is half of that:
    // two rows share a line, four chunks are permuted by row / 2. Wider rows permute within each 64 columns.
    constexpr int mask = width % 64 == 0 ? 7 : 3, shift = width % 64 == 0 ? 0 : 1;
    return row * width + ((column >> 3) ^ ((row >> shift) & mask)) * 8 + (column & 7);
}

/// Copies 16 bytes from global to shared memory in the background, or writes zeros if `valid` is false.
__device__ inline void copy_async(uint32_t shared, const void* global, bool valid = true) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(shared), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
__device__ inline void commit_copies() {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/// Waits until at most the `pending` latest groups of this thread are still in flight.
template <int pending>
__device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
}

/// Loads four 8 x 8 matrices; lane l passes the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}
/// The same, each matrix transposed.
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

/// c += a b
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, "
        "%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two floats as bf16 with `low` in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

/// 2^x, -inf -> 0.
__device__ inline float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(r) : "f"(x));
    return r;
}

/// Sets scores to -inf whose key is `window` or more positions before its query. Element [i][j][2 h + e] belongs to token
/// down + 16 i + 8 h and to token across + 8 j + e; `queries_down` says which of the two is the query.
template <bool queries_down, int m, int n>
__device__ __forceinline__ void hide_past_window(float (&s)[m][n][4], const int* positions, int window, int down,
                                                 int across) {
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int position = __ldg(positions + across + 8 * j + e);
#pragma unroll
            for (int i = 0; i < m; ++i)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int other = __ldg(positions + down + 16 * i + 8 * h);
                    if ((queries_down ? other - position : position - other) >= window) s[i][j][2 * h + e] = -INFINITY;
                }
        }
}

}  // namespace colonnade::portable
