// The serial products stand apart from gemm.cpp: a program that has only these, such as attention alone, is not linked
// with cuBLASLt.

#include <cblas.h>

#include "engine/device/gemm.h"

namespace colonnade {
namespace {

struct Sizes {
    CBLAS_TRANSPOSE a, b;
    blasint m, n, k, lda, ldb, ldc;
    template <typename T>
    explicit Sizes(const BlasGemm<T>& g)
        : a(g.transpose_a ? CblasTrans : CblasNoTrans),
          b(g.transpose_b ? CblasTrans : CblasNoTrans),
          m(static_cast<blasint>(g.m)),
          n(static_cast<blasint>(g.n)),
          k(static_cast<blasint>(g.k)),
          lda(static_cast<blasint>(g.lda)),
          ldb(static_cast<blasint>(g.ldb)),
          ldc(static_cast<blasint>(g.ldc)) {}
};

}  // namespace

void gemm_on_this_thread(const BlasGemm<float>& g) {
    const Sizes s(g);
    cblas_sgemm(CblasRowMajor, s.a, s.b, s.m, s.n, s.k, g.alpha, g.a, s.lda, g.b, s.ldb, g.beta, g.c, s.ldc);
}
void gemm_on_this_thread(const BlasGemm<double>& g) {
    const Sizes s(g);
    cblas_dgemm(CblasRowMajor, s.a, s.b, s.m, s.n, s.k, g.alpha, g.a, s.lda, g.b, s.ldb, g.beta, g.c, s.ldc);
}

}  // namespace colonnade
