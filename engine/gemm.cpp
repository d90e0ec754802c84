#include "engine/gemm.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>

namespace colonnade {
namespace {

void blas(const Gemm<float>& g, CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k) {
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, g.a, static_cast<blasint>(g.lda), g.b,
                static_cast<blasint>(g.ldb), g.beta, g.c, static_cast<blasint>(g.ldc));
}
void blas(const Gemm<double>& g, CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k) {
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, g.a, static_cast<blasint>(g.lda), g.b,
                static_cast<blasint>(g.ldb), g.beta, g.c, static_cast<blasint>(g.ldc));
}

/// One call of OpenBLAS on this thread.
template <typename T>
void serial(const Gemm<T>& g) {
    blas(g, g.transpose_a ? CblasTrans : CblasNoTrans, g.transpose_b ? CblasTrans : CblasNoTrans,
         static_cast<blasint>(g.m), static_cast<blasint>(g.n), static_cast<blasint>(g.k));
}

/// Rows [row, row + m) and columns [column, column + n) of C as a product of its own.
template <typename T>
Gemm<T> block_of(const Gemm<T>& g, int64_t row, int64_t column, int64_t m, int64_t n) {
    Gemm<T> block = g;
    block.m = m;
    block.n = n;
    block.c += row * g.ldc + column;
    block.a += g.transpose_a ? row : row * g.lda;
    block.b += g.transpose_b ? column * g.ldb : column;
    return block;
}

// How OpenBLAS splits a product over threads decides how it rounds, so the splitting is ours: blocks of C whose sizes follow
// from the shape alone, each a serial call. The bits are then the same for any number of threads, on every kind of core.
struct BlockSize {
    int64_t m = 512, n = 512;
    BlockSize(int64_t rows, int64_t columns) {
        constexpr int64_t wanted = 8, smallest = 64;
        const auto count = [](int64_t size, int64_t block) { return (size + block - 1) / block; };
        while (count(rows, m) * count(columns, n) < wanted && std::max(m, n) > smallest) {
            // Halve what has more to give: the longer side of the blocks that are really there.
            int64_t& longer = std::min(m, rows) >= std::min(n, columns) ? m : n;
            if (longer == smallest) break;
            longer /= 2;
        }
    }
};

/// OpenBLAS built on OpenMP is serial inside a parallel region by itself; built on threads of its own it is told to be.
void keep_openblas_serial() {
    static const bool told = [] {
        if (openblas_get_parallel() == OPENBLAS_THREAD) openblas_set_num_threads(1);
        return true;
    }();
    (void)told;
}

template <typename T>
void run(const Context& ctx, const Gemm<T>& g) {
    require_cpu(ctx, "gemm");
    if (g.m == 0 || g.n == 0) return;
    keep_openblas_serial();
    const PhaseTimer timer(ctx, "gemm");
    constexpr int64_t worth_a_team = int64_t{1} << 18;  // multiply-adds
    if (omp_in_parallel() || g.m * g.n * std::max<int64_t>(g.k, 1) < worth_a_team) return serial(g);
    const BlockSize size(g.m, g.n);
    const int64_t rows = (g.m + size.m - 1) / size.m, columns = (g.n + size.n - 1) / size.n;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < rows * columns; ++i) {
        const int64_t row = i / columns * size.m, column = i % columns * size.n;
        serial(block_of(g, row, column, std::min(size.m, g.m - row), std::min(size.n, g.n - column)));
    }
}

}  // namespace

void gemm(const Context& ctx, const Gemm<float>& g) {
    run(ctx, g);
}
void gemm(const Context& ctx, const Gemm<double>& g) {
    run(ctx, g);
}

}  // namespace colonnade
