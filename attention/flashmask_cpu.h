#pragma once
// Shared by the forward and the backward pass of FlashMask on the CPU: sizes, matrix views and GEMMs on them, scratch
// of a thread, the element mask of partial tiles, and the loop over work items. Not for use outside attention.

#include <omp.h>

#include <atomic>
#include <limits>
#include <memory>

#include "attention/flashmask.h"
#include "engine/device/gemm.h"

namespace colonnade::flashmask_cpu {

struct Shape {
    int64_t batch, rows, columns, heads, kv_heads, head_dim;
    int64_t group() const { return heads / kv_heads; }  ///< query heads per key/value head
};

void forward(const FlashMaskForward& args, const Shape& shape);
void backward(const FlashMaskBackward& args, const Shape& shape);

template <typename T>
constexpr T infinity = std::numeric_limits<T>::infinity();

/// A block of consecutive tokens.
struct Span {
    int64_t begin, size;
    Span(int64_t block, int64_t tile, int64_t n) : begin(block * tile), size(std::min(tile, n - begin)) {}
};

template <typename T>
struct Matrix {
    T* data;
    int64_t rows, columns, stride;
    T* row(int64_t i) const { return data + i * stride; }
    Matrix block(Span span) const { return {row(span.begin), span.size, columns, stride}; }
};

/// One head of a [batch, tokens, heads, head_dim] tensor as [tokens, head_dim].
template <typename T>
Matrix<T> head_of(const Tensor& t, int64_t b, int64_t h) {
    return {t.as<T>() + b * t.stride[0] + h * t.stride[2], t.size(1), t.size(3), t.stride[1]};
}

/// C = alpha op(A) op(B) + beta C. OpenBLAS has kernels for this size (64 x 64 x 64) that do not repack: on Zen 4 they
/// reach 110 GFLOP/s per core, hand-written register blocks with vector types 90.
template <typename T>
struct TileGemm {
    Matrix<T> c, a, b;
    bool transpose_a = false, transpose_b = false;
    T alpha = 1, beta = 0;
};
template <typename T>
void multiply(const TileGemm<T>& p) {
    gemm_on_this_thread(BlasGemm<T>{.m = p.c.rows,
                                    .n = p.c.columns,
                                    .k = p.transpose_a ? p.a.rows : p.a.columns,
                                    .c = p.c.data,
                                    .ldc = p.c.stride,
                                    .a = p.a.data,
                                    .lda = p.a.stride,
                                    .b = p.b.data,
                                    .ldb = p.b.stride,
                                    .transpose_a = p.transpose_a,
                                    .transpose_b = p.transpose_b,
                                    .alpha = p.alpha,
                                    .beta = p.beta});
}

/// Cache-line aligned memory of one thread for one block of at most rows x columns.
template <typename T>
class Buffer {
  public:
    explicit Buffer(int64_t elements)
        : data_(static_cast<T*>(::operator new(static_cast<size_t>(elements) * sizeof(T), line))) {}
    Matrix<T> as(int64_t rows, int64_t columns) const { return {data_.get(), rows, columns, columns}; }

  private:
    static constexpr std::align_val_t line{64};
    struct Free {
        void operator()(T* p) const { ::operator delete(p, line); }
    };
    std::unique_ptr<T, Free> data_;
};

/// The element mask of a partial tile: the bounds of its columns, and the first positions that are past their windows,
/// in arrays for vector compares.
class ColumnBounds {
  public:
    explicit ColumnBounds(int64_t tile_columns)
        : lts_(static_cast<size_t>(tile_columns)),
          lte_(lts_.size()),
          uts_(lts_.size()),
          ute_(lts_.size()),
          causal_(lts_.size()),
          limit_(lts_.size()) {}
    void load(const ColumnMask& mask, int64_t b, int64_t h, Span columns) {
        for (int64_t c = 0; c < columns.size; ++c) {
            const auto at = static_cast<size_t>(c);
            const auto x = mask.bounds(b, h, columns.begin + c);
            lts_[at] = x.lts, lte_[at] = x.lte, uts_[at] = x.uts, ute_[at] = x.ute;
            causal_[at] = mask.causal_rows(columns.begin + c);
        }
        if (mask.position_window == 0) return;
        position_ = mask.row_positions.data() + b * mask.rows;
        for (int64_t c = 0; c < columns.size; ++c)
            limit_[static_cast<size_t>(c)] = position_[columns.begin + c] + mask.position_window;
    }
    /// values[c] = hidden_value if `query` may not see column c.
    template <typename T>
    void hide(T* values, int64_t query, int64_t columns, T hidden_value) const {
        const int32_t *ls = lts_.data(), *le = lte_.data(), *us = uts_.data(), *ue = ute_.data(),
                      *future = causal_.data();
        const auto i = static_cast<int32_t>(query);
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) {
            const bool hidden = ((ls[c] <= i) & (i < le[c])) | ((us[c] <= i) & (i < ue[c])) | (i < future[c]);
            values[c] = hidden ? hidden_value : values[c];
        }
        if (position_) hide_past_window(values, position_[query], columns, hidden_value);
    }

  private:
    template <typename T>
    void hide_past_window(T* values, int32_t position, int64_t columns, T hidden_value) const {
        const int32_t* limit = limit_.data();
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) values[c] = position >= limit[c] ? hidden_value : values[c];
    }

    std::vector<int32_t> lts_, lte_, uts_, ute_, causal_, limit_;
    const int32_t* position_ = nullptr;  ///< of the rows, if the mask has positions
};

/// Runs body(item, scratch of the thread) for items 0, 1, ..., taken in ascending order. No sum depends on the number
/// of threads: OpenBLAS, which uses omp_get_max_threads(), stays serial.
template <typename ThreadScratch, typename Body>
void for_each_item(int64_t items, std::vector<ThreadScratch>& scratch, const Body& body) {
    std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(static_cast <int>(scratch.size()))
    {
        omp_set_num_threads(1);
        for (int64_t item = next++; item < items; item = next++)
            body(item, scratch[static_cast<size_t>(omp_get_thread_num())]);
    }
}

/// Scratch for each thread to use, of the size of the tiles. Little work, such as the one query row of a generated
/// token, stays on one thread.
template <typename ThreadScratch>
std::vector<ThreadScratch> scratch_per_thread(const TilePlan& plan, const Shape& shape, int64_t items) {
    constexpr int64_t worth_a_team = int64_t{1} << 18;  // multiply-adds of one GEMM
    const bool large = plan.cpu.visible_pairs * (shape.heads / plan.heads) * shape.head_dim >= worth_a_team;
    const int64_t threads = large ? std::min<int64_t>(omp_get_max_threads(), items) : 1;
    std::vector<ThreadScratch> scratch;
    for (int64_t i = 0; i < threads; ++i)
        scratch.emplace_back(std::min(plan.tile_rows, shape.rows), std::min(plan.tile_columns, shape.columns),
                             shape.head_dim);
    return scratch;
}

}  // namespace colonnade::flashmask_cpu
