#include "attention/flashmask_cpu.h"
#include "engine/device/vector_math.h"

// One sweep over column blocks. dK and dV of a block stay with its thread. Its share of dQ is added to the rows in
// turn, always in ascending order of column blocks. So S and dP are computed once (5 products per tile, instead of the
// 7 of one sweep for dK and dV and another for dQ), threads need no dQ buffers, and the bits do not depend on timing.

namespace colonnade::flashmask_cpu {
namespace {

template <typename T>
struct BackwardScratch {
    Buffer<T> keys, values;  ///< the column block, transposed: [head_dim, columns]
    Buffer<T> p, ds, dq, dk, dv;
    ColumnBounds bounds;
    BackwardScratch(int64_t rows, int64_t columns, int64_t dim)
        : keys(columns * dim),
          values(columns * dim),
          p(rows * columns),
          ds(rows * columns),
          dq(rows * dim),
          dk(columns * dim),
          dv(columns * dim),
          bounds(columns) {}
};

template <typename T>
void transpose(const Matrix<T>& to, const Matrix<T>& from) {
    for (int64_t i = 0; i < to.rows; ++i)
        for (int64_t j = 0; j < to.columns; ++j) to.row(i)[j] = from.row(j)[i];
}

template <typename T>
class Backward {
  public:
    Backward(const FlashMaskBackward& args, const Shape& shape)
        : args_(args),
          plan_(args.plan),
          shape_(shape),
          scale_(static_cast<T>(args.scale)),
          delta_(static_cast<size_t>(shape.batch * shape.heads * shape.rows)),
          added_(static_cast<size_t>(shape.batch * shape.heads * plan_.row_blocks)) {}

    void run() {
        const int64_t kv_heads = shape_.batch * shape_.kv_heads, items = plan_.column_blocks * kv_heads;
        auto scratch = scratch_per_thread<BackwardScratch<T>>(plan_, shape_, items);
        const auto threads = static_cast<int>(scratch.size());
#pragma omp parallel for collapse(2) num_threads(threads)
        for (int64_t b = 0; b < shape_.batch; ++b)
            for (int64_t block = 0; block < plan_.row_blocks; ++block)
                prepare(b, Span(block, plan_.tile_rows, shape_.rows));
        for_each_item(items, scratch, [&](int64_t item, BackwardScratch<T>& s) {
            const int64_t kv = item % kv_heads;
            column_block(s, kv / shape_.kv_heads, kv % shape_.kv_heads, item / kv_heads);
        });
    }

  private:
    /// D = rowsum(dO * O) and dQ = 0, for all heads.
    void prepare(int64_t b, Span rows) {
        for (int64_t h = 0; h < shape_.heads; ++h) {
            const auto out = head_of<T>(args_.out, b, h).block(rows), dout = head_of<T>(args_.dout, b, h).block(rows),
                       dq = head_of<T>(args_.dq, b, h).block(rows);
            T* delta = delta_.data() + (b * shape_.heads + h) * shape_.rows + rows.begin;
            for (int64_t r = 0; r < rows.size; ++r) {
                const T *x = out.row(r), *dx = dout.row(r);
                T sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t d = 0; d < shape_.head_dim; ++d) sum += x[d] * dx[d];
                delta[r] = sum;
                std::fill_n(dq.row(r), shape_.head_dim, T{0});
            }
        }
    }

    /// dK and dV of one column block, and its share of dQ, over the query heads that read this key/value head.
    void column_block(BackwardScratch<T>& s, int64_t b, int64_t kv, int64_t block) {
        const Span columns(block, plan_.tile_columns, shape_.columns);
        const auto k = head_of<T>(args_.k, b, kv).block(columns), v = head_of<T>(args_.v, b, kv).block(columns);
        const auto dk = s.dk.as(columns.size, shape_.head_dim), dv = s.dv.as(columns.size, shape_.head_dim);
        std::fill_n(dk.data, columns.size * shape_.head_dim, T{0});
        std::fill_n(dv.data, columns.size * shape_.head_dim, T{0});
        bool packed = false;
        int64_t loaded = -1;  // mask head whose bounds are loaded
        for (int64_t h = kv * shape_.group(); h < (kv + 1) * shape_.group(); ++h) {
            const int64_t mask_head = h / (shape_.heads / args_.mask.heads), sheet = b * plan_.heads + mask_head;
            const auto list = static_cast<size_t>(sheet * plan_.column_blocks + block);
            const auto begin = static_cast<size_t>(plan_.cpu.by_column_begin[list]),
                       end = static_cast<size_t>(plan_.cpu.by_column_begin[list + 1]);
            if (begin == end) continue;
            if (!packed) {
                // GEMMs that transpose on the fly run at two thirds of the speed.
                transpose(s.keys.as(shape_.head_dim, columns.size), k);
                transpose(s.values.as(shape_.head_dim, columns.size), v);
                packed = true;
            }
            for (size_t t = begin; t < end; ++t) {
                const auto [row_block, partial] = plan_.cpu.by_column[t];
                if (partial && loaded != mask_head) {
                    s.bounds.load(args_.mask, b, mask_head, columns);
                    loaded = mask_head;
                }
                tile(s, b, h, k, Span(row_block, plan_.tile_rows, shape_.rows), partial);
                add_in_turn(s, b, h, sheet, row_block, block);
            }
        }
        const auto dk_to = head_of<T>(args_.dk, b, kv).block(columns),
                   dv_to = head_of<T>(args_.dv, b, kv).block(columns);
        for (int64_t c = 0; c < columns.size; ++c) {
            std::copy_n(dk.row(c), shape_.head_dim, dk_to.row(c));
            std::copy_n(dv.row(c), shape_.head_dim, dv_to.row(c));
        }
    }

    void tile(BackwardScratch<T>& s, int64_t b, int64_t h, const Matrix<T>& k, Span rows, bool partial) {
        const int64_t columns = k.rows, dim = shape_.head_dim;
        const auto q = head_of<T>(args_.q, b, h).block(rows), dout = head_of<T>(args_.dout, b, h).block(rows);
        const auto p = s.p.as(rows.size, columns), ds = s.ds.as(rows.size, columns);
        multiply<T>({.c = p, .a = q, .b = s.keys.as(dim, columns), .alpha = scale_});
        multiply<T>({.c = ds, .a = dout, .b = s.values.as(dim, columns)});
        score_gradients(s.bounds, p, ds, (b * shape_.heads + h) * shape_.rows, rows.begin, partial);
        multiply<T>({.c = s.dv.as(columns, dim), .a = p, .b = dout, .transpose_a = true, .beta = 1});
        multiply<T>({.c = s.dk.as(columns, dim), .a = ds, .b = q, .transpose_a = true, .alpha = scale_, .beta = 1});
        multiply<T>({.c = s.dq.as(rows.size, dim), .a = ds, .b = k, .alpha = scale_});
    }

    /// Scores in p become P = exp(S - lse), dP in ds becomes dS = P (dP - D).
    void score_gradients(const ColumnBounds& bounds, const Matrix<T>& p, const Matrix<T>& ds, int64_t head,
                         int64_t first_row, bool partial) {
        const T* all_lse = args_.lse.as<T>() + head;
        for (int64_t r = 0; r < p.rows; ++r) {
            T *pr = p.row(r), *dsr = ds.row(r);
            // A row that saw nothing has lse = -inf: +inf makes all its probabilities 0.
            const T lse = all_lse[first_row + r] == -infinity<T> ? infinity<T> : all_lse[first_row + r];
            const T mean = delta_[static_cast<size_t>(head + first_row + r)];
#pragma omp simd
            for (int64_t c = 0; c < p.columns; ++c) {
                pr[c] = vexp(pr[c] - lse);
                dsr[c] = pr[c] * (dsr[c] - mean);
            }
            if (!partial) continue;
            bounds.hide(pr, first_row + r, p.columns, T{0});
            bounds.hide(dsr, first_row + r, p.columns, T{0});
        }
    }

    /// Adds the tile's dQ after all column blocks before it have added theirs. This cannot deadlock: column blocks are
    /// taken in ascending order, so a thread only waits for blocks that are already in progress.
    void add_in_turn(BackwardScratch<T>& s, int64_t b, int64_t h, int64_t sheet, int64_t row_block,
                     int64_t column_block) {
        const auto list = static_cast<size_t>(sheet * plan_.row_blocks + row_block);
        const auto first = plan_.cpu.by_row.begin() + plan_.cpu.by_row_begin[list],
                   last = plan_.cpu.by_row.begin() + plan_.cpu.by_row_begin[list + 1];
        const auto here = std::lower_bound(first, last, column_block,
                                           [](CpuTilePlan::Tile t, int64_t block) { return t.index < block; });
        const auto turn = static_cast<int32_t>(here - first);
        auto& added = added_[static_cast<size_t>((b * shape_.heads + h) * plan_.row_blocks + row_block)];
        for (int32_t now; (now = added.load(std::memory_order_acquire)) != turn;) added.wait(now);
        const Span rows(row_block, plan_.tile_rows, shape_.rows);
        const auto sum = head_of<T>(args_.dq, b, h).block(rows), share = s.dq.as(rows.size, shape_.head_dim);
        for (int64_t r = 0; r < rows.size; ++r) {
            T* to = sum.row(r);
            const T* from = share.row(r);
#pragma omp simd
            for (int64_t d = 0; d < shape_.head_dim; ++d) to[d] += from[d];
        }
        added.store(turn + 1, std::memory_order_release);
        added.notify_all();
    }

    const FlashMaskBackward& args_;
    const TilePlan& plan_;
    const Shape shape_;
    const T scale_;
    std::vector<T> delta_;                     ///< [batch, heads, rows]
    std::vector<std::atomic<int32_t>> added_;  ///< per (batch, head, row block): column blocks whose dQ has been added
};

}  // namespace

void backward(const FlashMaskBackward& args, const Shape& shape) {
    dispatch_float(args.q.dtype, [&]<typename T>() { Backward<T>(args, shape).run(); });
}

}  // namespace colonnade::flashmask_cpu
