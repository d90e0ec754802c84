#include "engine/gemm.h"

#include <cblas.h>

#include <algorithm>

namespace colonnade {
namespace {

// OpenBLAS rounds a long inner dimension differently on one thread than on several. In pieces of 256 it does not (measured:
// 0 of 120 shapes differ, instead of 96, at no cost beyond noise), so the bits do not depend on the number of threads.
constexpr int64_t k_piece = 256;

void blas(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k, const Gemm<float>& g, const float* a,
          const float* b, float beta) {
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, a, static_cast<blasint>(g.lda), b, static_cast<blasint>(g.ldb),
                beta, g.c, static_cast<blasint>(g.ldc));
}
void blas(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k, const Gemm<double>& g,
          const double* a, const double* b, double beta) {
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, a, static_cast<blasint>(g.lda), b, static_cast<blasint>(g.ldb),
                beta, g.c, static_cast<blasint>(g.ldc));
}

template <typename T>
void run(const Context& ctx, const Gemm<T>& g) {
    if (g.m == 0 || g.n == 0) return;
    const PhaseTimer timer(ctx, "gemm");
    const auto ta = g.transpose_a ? CblasTrans : CblasNoTrans, tb = g.transpose_b ? CblasTrans : CblasNoTrans;
    const int64_t a_step = g.transpose_a ? g.lda : 1, b_step = g.transpose_b ? 1 : g.ldb;
    for (int64_t k = 0; k == 0 || k < g.k; k += k_piece)
        blas(ta, tb, static_cast<blasint>(g.m), static_cast<blasint>(g.n),
             static_cast<blasint>(std::min(k_piece, g.k - k)), g, g.a + k * a_step, g.b + k * b_step,
             k == 0 ? g.beta : T{1});
}

}  // namespace

void gemm(const Context& ctx, const Gemm<float>& g) {
    run(ctx, g);
}
void gemm(const Context& ctx, const Gemm<double>& g) {
    run(ctx, g);
}

}  // namespace colonnade
