#include "attention/flashmask_cpu.h"
#include "engine/device/vector_math.h"

namespace colonnade::flashmask_cpu {
namespace {

template <typename T>
struct ForwardScratch {
    Buffer<T> scores, out;
    std::vector<T> max, sum;
    ColumnBounds bounds;
    ForwardScratch(int64_t rows, int64_t columns, int64_t dim)
        : scores(rows * columns), out(rows * dim), max(static_cast<size_t>(rows)), sum(max.size()), bounds(columns) {}
};

/// Online softmax of one row: updates max and sum, scores become exp(score - max). Returns exp(old max - new max), the
/// factor for earlier sums.
template <typename T>
T softmax_step(T* scores, int64_t columns, T& max, T& sum) {
    T peak = max;
#pragma omp simd reduction(max : peak)
    for (int64_t c = 0; c < columns; ++c) peak = scores[c] > peak ? scores[c] : peak;
    // While a row has seen no key its max is -inf; subtracting 0 instead keeps NaN out: exp(-inf - 0) = 0.
    const T shift = peak == -infinity<T> ? T{0} : peak;
    T added = 0;
#pragma omp simd reduction(+ : added)
    for (int64_t c = 0; c < columns; ++c) {
        scores[c] = vexp(scores[c] - shift);
        added += scores[c];
    }
    const T keep = vexp(max - shift);
    max = peak;
    sum = sum * keep + added;
    return keep;
}

template <typename T>
void forward_row_block(const FlashMaskForward& args, const Shape& shape, ForwardScratch<T>& s, int64_t b, int64_t h,
                       int64_t block) {
    const TilePlan& plan = args.plan;
    const int64_t dim = shape.head_dim, kv = h / shape.group(), mask_head = h / (shape.heads / args.mask.heads);
    const Span rows(block, plan.tile_rows, shape.rows);
    const auto q = head_of<T>(args.q, b, h).block(rows), to = head_of<T>(args.out, b, h).block(rows);
    const auto k = head_of<T>(args.k, b, kv), v = head_of<T>(args.v, b, kv), out = s.out.as(rows.size, dim);
    std::fill(s.max.begin(), s.max.end(), -infinity<T>);
    std::fill(s.sum.begin(), s.sum.end(), T{0});
    std::fill_n(out.data, rows.size * dim, T{0});
    const auto list = static_cast<size_t>((b * plan.heads + mask_head) * plan.row_blocks + block);
    for (auto t = static_cast<size_t>(plan.cpu.by_row_begin[list]);
         t < static_cast<size_t>(plan.cpu.by_row_begin[list + 1]); ++t) {
        const auto [index, partial] = plan.cpu.by_row[t];
        const Span columns(index, plan.tile_columns, shape.columns);
        const auto scores = s.scores.as(rows.size, columns.size);
        multiply<T>(
            {.c = scores, .a = q, .b = k.block(columns), .transpose_b = true, .alpha = static_cast<T>(args.scale)});
        if (partial) s.bounds.load(args.mask, b, mask_head, columns);
        for (int64_t r = 0; r < rows.size; ++r) {
            const auto at = static_cast<size_t>(r);
            if (partial) s.bounds.hide(scores.row(r), rows.begin + r, columns.size, -infinity<T>);
            const T keep = softmax_step(scores.row(r), columns.size, s.max[at], s.sum[at]);
            if (keep == T{1}) continue;
            for (T* x = out.row(r); x != out.row(r) + dim; ++x) *x *= keep;
        }
        multiply<T>({.c = out, .a = scores, .b = v.block(columns), .beta = 1});
    }
    T* lse = args.lse.as<T>() + (b * shape.heads + h) * shape.rows + rows.begin;
    for (int64_t r = 0; r < rows.size; ++r) {
        const T sum = s.sum[static_cast<size_t>(r)];
        lse[r] = sum == T{0} ? -infinity<T> : s.max[static_cast<size_t>(r)] + std::log(sum);
        const T factor = sum == T{0} ? T{0} : T{1} / sum;
        for (int64_t d = 0; d < dim; ++d) to.row(r)[d] = out.row(r)[d] * factor;
    }
}

template <typename T>
void run(const FlashMaskForward& args, const Shape& shape) {
    const TilePlan& plan = args.plan;
    const int64_t sharing = shape.heads / args.mask.heads;  // query heads per mask head
    const auto items = static_cast<int64_t>(plan.cpu.row_order.size()) * sharing;
    auto scratch = scratch_per_thread<ForwardScratch<T>>(plan, shape, items);
    for_each_item(items, scratch, [&](int64_t item, ForwardScratch<T>& s) {
        const int64_t list = plan.cpu.row_order[static_cast<size_t>(item / sharing)], sheet = list / plan.row_blocks;
        const int64_t h = sheet % plan.heads * sharing + item % sharing;
        forward_row_block(args, shape, s, sheet / plan.heads, h, list % plan.row_blocks);
    });
}

}  // namespace

void forward(const FlashMaskForward& args, const Shape& shape) {
    dispatch_float(args.q.dtype, [&]<typename T>() { run<T>(args, shape); });
}

}  // namespace colonnade::flashmask_cpu
