#include "engine/gemm.h"

#include <cblas.h>

namespace colonnade {
namespace {

template <typename T>
void run(const Context& ctx, const Gemm<T>& g) {
    if (g.m == 0 || g.n == 0) return;
    const PhaseTimer timer(ctx, "gemm");
    const auto ta = g.transpose_a ? CblasTrans : CblasNoTrans, tb = g.transpose_b ? CblasTrans : CblasNoTrans;
    const auto m = static_cast<blasint>(g.m), n = static_cast<blasint>(g.n), k = static_cast<blasint>(g.k);
    const auto lda = static_cast<blasint>(g.lda), ldb = static_cast<blasint>(g.ldb), ldc = static_cast<blasint>(g.ldc);
    if constexpr (std::is_same_v<T, float>)
        cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, g.a, lda, g.b, ldb, g.beta, g.c, ldc);
    else
        cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, g.a, lda, g.b, ldb, g.beta, g.c, ldc);
}

}  // namespace

void gemm(const Context& ctx, const Gemm<float>& g) { run(ctx, g); }
void gemm(const Context& ctx, const Gemm<double>& g) { run(ctx, g); }

}  // namespace colonnade
