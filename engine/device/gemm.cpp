#include "engine/device/gemm.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>

namespace colonnade {
namespace {

/// OpenBLAS built on OpenMP goes by omp_get_max_threads(); built on threads of its own it has to be told.
void keep_openblas_serial() {
    static const bool told = [] {
        if (openblas_get_parallel() == OPENBLAS_THREAD) openblas_set_num_threads(1);
        return true;
    }();
    (void)told;
}

void blas(const Gemm<float>& g, CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k) {
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, g.a, static_cast<blasint>(g.lda), g.b,
                static_cast<blasint>(g.ldb), g.beta, g.c, static_cast<blasint>(g.ldc));
}
void blas(const Gemm<double>& g, CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k) {
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, g.alpha, g.a, static_cast<blasint>(g.lda), g.b,
                static_cast<blasint>(g.ldb), g.beta, g.c, static_cast<blasint>(g.ldc));
}

/// OpenBLAS takes 32-bit sizes and only prints a line where a leading dimension is too small.
template <typename T>
void check(const Gemm<T>& g) {
    const auto fits = [](int64_t ld, int64_t width) { return ld >= std::max<int64_t>(width, 1) && ld <= INT32_MAX; };
    if (std::max({g.m, g.n, g.k}) > INT32_MAX || !fits(g.ldc, g.n) || !fits(g.lda, g.transpose_a ? g.m : g.k) ||
        !fits(g.ldb, g.transpose_b ? g.k : g.n))
        fail(Exit::internal, "gemm {} x {} x {}: leading dimensions {}, {}, {}", g.m, g.n, g.k, g.ldc, g.lda, g.ldb);
}

/// One call of OpenBLAS, which is serial where omp_get_max_threads() is 1.
template <typename T>
void one_call(const Gemm<T>& g) {
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

// How OpenBLAS splits a product over threads decides how it rounds, so the splitting is ours: blocks of C whose sizes
// follow from the shape alone, each a serial call. The bits are then the same for any number of threads, on every kind
// of core.
struct BlockSize {
    int64_t m, n;
};

/// About `wanted` blocks: halves the longer side of the blocks that are really there.
BlockSize block_size(int64_t rows, int64_t columns) {
    constexpr int64_t wanted = 8, largest = 512, smallest = 64;
    BlockSize size{largest, largest};
    const auto count = [](int64_t total, int64_t block) { return (total + block - 1) / block; };
    while (count(rows, size.m) * count(columns, size.n) < wanted) {
        int64_t& longer = std::min(size.m, rows) >= std::min(size.n, columns) ? size.m : size.n;
        if (longer == smallest) break;
        longer /= 2;
    }
    return size;
}

template <typename T>
void run(const Context& ctx, const Gemm<T>& g) {
    require(ctx.device == Device::cpu, "gemm in {} on {}", name_of(dtype_of<T>()), name_of(ctx.device));
    if (g.m == 0 || g.n == 0) return;
    const PhaseTimer timer(ctx, "gemm");
    check(g);
    keep_openblas_serial();
    constexpr int64_t worth_a_team = int64_t{1} << 18;  // multiply-adds
    const bool large = g.m * g.n * g.k >= worth_a_team;
    const BlockSize size = large ? block_size(g.m, g.n) : BlockSize{g.m, g.n};
    const int64_t rows = (g.m + size.m - 1) / size.m, columns = (g.n + size.n - 1) / size.n;
#pragma omp parallel if (large)
    {
        omp_set_num_threads(1);  // of this task: a team of one is no parallel region to OpenBLAS
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < rows * columns; ++i) {
            const int64_t row = i / columns * size.m, column = i % columns * size.n;
            one_call(block_of(g, row, column, std::min(size.m, g.m - row), std::min(size.n, g.n - column)));
        }
    }
}

}  // namespace

void gemm(const Context& ctx, const Gemm<float>& g) {
    run(ctx, g);
}
void gemm(const Context& ctx, const Gemm<double>& g) {
    run(ctx, g);
}

void gemm_on_this_thread(const Gemm<float>& g) {
    one_call(g);
}
void gemm_on_this_thread(const Gemm<double>& g) {
    one_call(g);
}

}  // namespace colonnade
