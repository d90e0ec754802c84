#pragma once
// GEMM: the matrix product of all layers, on either device.
//
//     C = alpha * op(A) * op(B) + beta * C        op is the identity or the transpose
//     C = alpha * op(A) * op(B) + bias            bias is added to every row; beta must be 0
//
// Matrices are row-major. Rows may be strided (a slice of a packed buffer); the last dimension is contiguous.
//
//     CPU, OpenBLAS   all operands f32 or all f64; the same bits for any number of threads
//     GPU, cuBLASLt   A, B and bias are bf16, C is bf16 or f32, sums are in f32; the same bits in every run on one kind
//                     of device
//     Hopper          also A and B in e4m3 (u8), each element times the scale of its group; m is a multiple of 4, n and k
//                     of 16, B is transposed (layers/fp8_product.h)

#include "engine/device/context.h"

namespace colonnade {

struct Gemm {
    Tensor c;  ///< [m, n]; not read when beta is 0
    Tensor a;  ///< [m, k], or [k, m] if transposed
    Tensor b;  ///< [k, n], or [n, k] if transposed
    bool transpose_a = false, transpose_b = false;
    Tensor a_scales{};  ///< of e4m3: f32 [k / 128, m], rounded up: of 128 neighbours in k
    Tensor
        b_scales{};  ///< of e4m3: f32 [n / 128, k / 128], rounded up, the last to a multiple of 4: of 128 x 128 elements
    Tensor bias{};   ///< [n], or empty
    double alpha = 1, beta = 0;

    int64_t m() const { return c.size(0); }
    int64_t n() const { return c.size(1); }
    int64_t k() const { return a.size(transpose_a ? 0 : 1); }
};
/// Multi-threaded on the CPU, enqueued on a GPU. Throws Exit::internal if shapes, dtypes or devices do not match. Time
/// counts as phase "gemm", on the CPU that of the bias as "bias". Must not be called inside an OpenMP parallel region.
void gemm(const Context& ctx, const Gemm& args);

/// The version of OpenBLAS and the kernels that it chose for this processor, on which the last bits depend: "0.3.21
/// Haswell".
std::string blas_kernels();

/// Arguments of one BLAS call on raw pointers, sizes unchecked.
template <typename T>
struct BlasGemm {
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
/// One serial product on the calling thread, for kernels that are parallel themselves. Their threads have called
/// omp_set_num_threads(1), which OpenBLAS obeys.
void gemm_on_this_thread(const BlasGemm<float>& g);
void gemm_on_this_thread(const BlasGemm<double>& g);

namespace cuda {
void gemm(const Context& ctx, const Gemm& args);  ///< operands are checked by colonnade::gemm
bool gemm_takes_fp8();                            ///< whether this build's cuBLASLt knows such scales
}  // namespace cuda

}  // namespace colonnade
