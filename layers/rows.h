#pragma once
// CPU kernels over rows, shared by several ops. The bits of a result do not depend on the number of threads: a sum
// belongs to one thread, or is taken over blocks of rows whose borders depend only on the number of rows.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/device/tensor.h"

namespace colonnade {

/// Forward ops with fewer elements stay on one thread, because waking the others costs more (a generated token, for
/// example).
constexpr int64_t parallel_from = 1 << 14;

/// A row-major matrix: `stride` elements from one row to the next.
template <typename T>
struct Rows {
    T* data;
    int64_t stride;
    T* operator[](int64_t row) const { return data + row * stride; }
};

/// The elements of a contiguous vector.
template <typename T>
std::span<T> elements(const Tensor& vector) {
    return {vector.as<std::remove_const_t<T>>(), static_cast<size_t>(vector.numel())};
}

/// out[i] = in[index[i]]
template <typename T>
void gather(Rows<T> out, Rows<const T> in, std::span<const int32_t> index, int64_t width) {
    const auto count = static_cast<int64_t>(index.size());
#pragma omp parallel for schedule(static) if (count * width >= parallel_from)
    for (int64_t i = 0; i < count; ++i) std::copy_n(in[index[static_cast<size_t>(i)]], width, out[i]);
}

/// out[index[i]] += in[i], in the order of i. The columns are divided among the threads, in whole cache lines.
template <typename T>
void scatter_add(Rows<T> out, Rows<const T> in, std::span<const int32_t> index, int64_t width) {
    constexpr int64_t line = 64 / sizeof(T);
    const int64_t lines = (width + line - 1) / line;
#pragma omp parallel
    {
        const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
        const int64_t begin = lines * thread / threads * line;
        const int64_t end = std::min(width, lines * (thread + 1) / threads * line);
        const T* from = in.data;
        for (const int32_t row : index) {
            T* to = out[row];
#pragma omp simd
            for (int64_t j = begin; j < end; ++j) to[j] += from[j];
            from += in.stride;
        }
    }
}

/// Adds to sum[j] what add(row, partial) adds to partial[j], over all rows. `add` runs exactly once per row, in
/// parallel, and may do other work of the row as well. `partial` is [width] in double, shared only with rows of the
/// same block.
template <typename T, typename Add>
void sum_over_rows(int64_t rows, int64_t width, T* sum, Add&& add) {
    // Enough blocks for load balance on many cores, few enough for their partial sums to stay in cache.
    constexpr int64_t blocks = 32;
    std::vector<double> partials(static_cast<size_t>(blocks * width));
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t row = rows * b / blocks; row < rows * (b + 1) / blocks; ++row)
            add(row, partials.data() + b * width);
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < width; ++j) {
        double total = 0;
        for (int64_t b = 0; b < blocks; ++b) total += partials[static_cast<size_t>(b * width + j)];
        sum[j] += static_cast<T>(total);
    }
}

}  // namespace colonnade
