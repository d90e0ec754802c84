#pragma once
// GEMM: C = alpha * op(A) * op(B) + beta * C, row-major, op = identity or transpose. OpenBLAS on the CPU, cuBLASLt on
// the GPU.

#include "engine/device/context.h"

namespace colonnade {

template <typename T>
struct Gemm {
    int64_t m, n, k;  ///< op(A) is [m, k], op(B) is [k, n], C is [m, n]
    T* c;
    int64_t ldc;  ///< leading dimension: elements from one row to the next
    const T* a;
    int64_t lda;
    const T* b;
    int64_t ldb;
    bool transpose_a = false, transpose_b = false;
    T alpha = 1, beta = 0;
};

/// Multi-threaded; the same bits for any number of threads. Counted under the phase "gemm". Not for use inside a
/// parallel region.
void gemm(const Context& ctx, const Gemm<float>& g);
void gemm(const Context& ctx, const Gemm<double>& g);

/// One product in one piece on the calling thread, sizes unchecked, for kernels that are parallel themselves. Their
/// threads have called omp_set_num_threads(1), by which OpenBLAS goes.
void gemm_on_this_thread(const Gemm<float>& g);
void gemm_on_this_thread(const Gemm<double>& g);

/// bf16 operands, sums in f32, C in bf16 or f32. Rows may be strided, columns are contiguous.
struct GpuGemm {
    int64_t m, n, k;
    Tensor c;     ///< [m, n] bf16 or f32
    Tensor a, b;  ///< bf16 [m, k] and [k, n]; [k, m] and [n, k] where transposed
    bool transpose_a = false, transpose_b = false;
    Tensor bias{};  ///< bf16 [n], added to every row; or empty
    float alpha = 1, beta = 0;
};
/// Enqueued on the context's GPU; the same bits in every run on one kind of device. Counted under the phase "gemm".
void gemm(const Context& ctx, const GpuGemm& g);

}  // namespace colonnade
