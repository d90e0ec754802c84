#include "engine/device/gemm.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>

#include "engine/device/blas_memory.h"

namespace colonnade {
namespace {

/// The OpenMP build of OpenBLAS obeys omp_get_max_threads(); the build with its own threads needs an explicit call.
void prepare_openblas() {
    [[maybe_unused]] static const bool once = [] {
        if (openblas_get_parallel() == OPENBLAS_THREAD) openblas_set_num_threads(1);
        return true;
    }();
    reserve_blas_memory();
}

/// OpenBLAS takes 32-bit sizes, and only prints a line if a leading dimension is too small.
template <typename T>
void check_sizes(const BlasGemm<T>& g) {
    const auto fits = [](int64_t ld, int64_t width) { return ld >= std::max<int64_t>(width, 1) && ld <= INT32_MAX; };
    if (std::max({g.m, g.n, g.k}) > INT32_MAX || !fits(g.ldc, g.n) || !fits(g.lda, g.transpose_a ? g.m : g.k) ||
        !fits(g.ldb, g.transpose_b ? g.k : g.n))
        fail(Exit::internal, "gemm {} x {} x {}: leading dimensions {}, {}, {}", g.m, g.n, g.k, g.ldc, g.lda, g.ldb);
}

/// The product that computes rows [row, row + m) and columns [column, column + n) of C.
template <typename T>
BlasGemm<T> block_of(const BlasGemm<T>& g, int64_t row, int64_t column, int64_t m, int64_t n) {
    BlasGemm<T> block = g;
    block.m = m;
    block.n = n;
    block.c += row * g.ldc + column;
    block.a += g.transpose_a ? row : row * g.lda;
    block.b += g.transpose_b ? column * g.ldb : column;
    return block;
}

// The way OpenBLAS splits a product over threads changes the rounding. We split it ourselves, into blocks of C whose
// sizes depend on the shape alone, each a serial call: the bits are then the same for any number of threads, on every
// kind of core.
struct BlockSize {
    int64_t m, n;
};

/// Aims at `wanted` blocks: halves the longer side of the blocks until there are enough.
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
void multiply(const BlasGemm<T>& g) {
    check_sizes(g);
    prepare_openblas();
    constexpr int64_t parallel_from = int64_t{1} << 18;  // multiply-adds
    const bool large = g.m * g.n * g.k >= parallel_from;
    const BlockSize size = large ? block_size(g.m, g.n) : BlockSize{g.m, g.n};
    const int64_t rows = (g.m + size.m - 1) / size.m, columns = (g.n + size.n - 1) / size.n;
#pragma omp parallel if (large)
    {
        omp_set_num_threads(1);  // for this task: OpenBLAS does not take a team of one for a parallel region
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < rows * columns; ++i) {
            const int64_t row = i / columns * size.m, column = i % columns * size.n;
            gemm_on_this_thread(block_of(g, row, column, std::min(size.m, g.m - row), std::min(size.n, g.n - column)));
        }
    }
}

template <typename T>
void copy_bias(const Gemm& g) {
    constexpr int64_t parallel_from = 1 << 14;  // elements
    const T* const bias = g.bias.as<T>();
    T* const c = g.c.as<T>();
#pragma omp parallel for schedule(static) if (g.m() * g.n() >= parallel_from)
    for (int64_t row = 0; row < g.m(); ++row) std::copy_n(bias, g.n(), c + row * g.c.stride[0]);
}

void gemm_on_cpu(const Context& ctx, const Gemm& g) {
    const bool biased = !g.bias.empty();
    dispatch_float(g.c.dtype, [&]<typename T>() {
        // The bias goes in first and the product is added to it: no more traffic than writing the product alone.
        if (biased) {
            const PhaseTimer timer(ctx, "bias");
            copy_bias<T>(g);
        }
        const PhaseTimer timer(ctx, "gemm");
        multiply(BlasGemm<T>{.m = g.m(),
                             .n = g.n(),
                             .k = g.k(),
                             .c = g.c.as<T>(),
                             .ldc = g.c.stride[0],
                             .a = g.a.as<T>(),
                             .lda = g.a.stride[0],
                             .b = g.b.as<T>(),
                             .ldb = g.b.stride[0],
                             .transpose_a = g.transpose_a,
                             .transpose_b = g.transpose_b,
                             .alpha = static_cast<T>(g.alpha),
                             .beta = static_cast<T>(biased ? 1 : g.beta)});
    });
}

void check_operand(const Context& ctx, const char* name, const Tensor& t, int64_t rows, int64_t columns) {
    const bool held =
        t.rank == 2 && t.device == ctx.device && t.size(0) == rows && t.size(1) == columns && t.stride[1] == 1;
    require(held, "gemm: {} is {} on {}, expected [{}, {}] on {}", name, t, t.device, rows, columns, ctx.device);
}

}  // namespace

std::string blas_kernels() {
    // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..."
    const std::string config = openblas_get_config();
    const size_t name = config.find(' '), version = config.find(' ', name + 1);
    return fmt::format("{} {}", config.substr(name + 1, version - name - 1), openblas_get_corename());
}

void gemm(const Context& ctx, const Gemm& g) {
    check_operand(ctx, "c", g.c, g.m(), g.n());
    check_operand(ctx, "a", g.a, g.transpose_a ? g.k() : g.m(), g.transpose_a ? g.m() : g.k());
    check_operand(ctx, "b", g.b, g.transpose_b ? g.n() : g.k(), g.transpose_b ? g.k() : g.n());
    require(g.bias.empty() || (g.bias.numel() == g.n() && g.beta == 0),
            "gemm: bias is {} with beta {}, expected [{}] with 0", g.bias, g.beta, g.n());
    if (const bool fp8 = g.a.dtype == DType::u8; fp8 || !g.a_scales.empty() || !g.b_scales.empty()) {
        const int64_t across = (g.k() + 127) / 128;
        require(fp8 && g.b.dtype == DType::u8 && g.transpose_b && !g.transpose_a, "gemm: {} x {} with scales", g.a,
                g.b);
        check_operand(ctx, "a_scales", g.a_scales, across, g.m());
        check_operand(ctx, "b_scales", g.b_scales, (g.n() + 127) / 128, (across + 3) / 4 * 4);
    }
    const bool adds_nothing = g.k() == 0 && g.beta == 1;
    if (g.m() == 0 || g.n() == 0 || adds_nothing) return;
    if (ctx.device == Device::cuda)
        cuda::gemm(ctx, g);
    else
        gemm_on_cpu(ctx, g);
}

}  // namespace colonnade
