#include "attention/measure.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "attention/dense.h"
#include "attention/flashmask.h"
#include "engine/philox.h"

namespace colonnade {
namespace {

template <typename T>
std::vector<T> random_values(int64_t n, uint64_t stream) {
    const Philox random{1, stream};
    std::vector<T> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(4 * random.uniform(i) - 2);
    return values;
}

/// Operands and results of one attention call, forward and backward.
template <typename T>
struct Operands {
    int64_t batch, rows, columns;
    AttentionSize size;
    const ColumnMask& mask;
    double scale;
    std::vector<T> q, k, v, dout, out, lse, dq, dk, dv;

    Operands(const ColumnMask& m, const AttentionSize& s)
        : batch(m.batch),
          rows(m.rows),
          columns(m.columns),
          size(s),
          mask(m),
          scale(1 / std::sqrt(static_cast<double>(s.head_dim))) {
        const int64_t queries = batch * rows * s.heads * s.head_dim, keys = batch * columns * s.kv_heads * s.head_dim;
        q = random_values<T>(queries, 0), k = random_values<T>(keys, 1), v = random_values<T>(keys, 2);
        dout = random_values<T>(queries, 3);
        out.resize(q.size()), dq.resize(q.size()), dk.resize(k.size()), dv.resize(k.size());
        lse.resize(static_cast<size_t>(batch * s.heads * rows));
    }
    Tensor query(std::vector<T>& x) { return {x.data(), dtype_of<T>(), {batch, rows, size.heads, size.head_dim}}; }
    Tensor key(std::vector<T>& x) { return {x.data(), dtype_of<T>(), {batch, columns, size.kv_heads, size.head_dim}}; }
    Tensor lse_view() { return {lse.data(), dtype_of<T>(), {batch, size.heads, rows}}; }

    void forward(const TilePlan& plan) {
        flashmask_forward({}, {.out = query(out),
                               .lse = lse_view(),
                               .q = query(q),
                               .k = key(k),
                               .v = key(v),
                               .mask = mask,
                               .plan = plan,
                               .scale = scale});
    }
    void backward(const TilePlan& plan) {
        flashmask_backward({}, {.dq = query(dq),
                                .dk = key(dk),
                                .dv = key(dv),
                                .dout = query(dout),
                                .out = query(out),
                                .lse = lse_view(),
                                .q = query(q),
                                .k = key(k),
                                .v = key(v),
                                .mask = mask,
                                .plan = plan,
                                .scale = scale});
    }
};

template <typename Body>
double median_seconds(int repeat, const Body& body) {
    body();
    std::vector<double> seconds;
    for (int i = 0; i < repeat; ++i) {
        const auto start = std::chrono::steady_clock::now();
        body();
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

template <typename T>
double worst_error(const std::vector<T>& a, const std::vector<double>& b) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    double error = 0, peak = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double x = a[i];
        if (x == b[i]) {
            if (std::isfinite(x)) peak = std::max(peak, std::abs(x));
            continue;
        }
        const double difference = std::abs(x - b[i]);
        if (!std::isfinite(difference)) return infinity;
        error = std::max(error, difference);
        peak = std::max(peak, std::abs(b[i]));
    }
    return peak == 0 ? error : error / peak;
}

std::vector<double> widened(const auto& v) {
    return {v.begin(), v.end()};
}

}  // namespace

Measurement measure_flashmask(const ColumnMask& mask, const AttentionSize& size, int repeat) {
    Measurement result{};
    dispatch_float(size.dtype, [&]<typename T>() {
        Operands<T> operands(mask, size);
        TilePlan plan;
        result.plan_seconds =
            median_seconds(repeat, [&] { plan = make_tile_plan(mask, size.tile_rows, size.tile_columns); });
        result.forward_seconds = median_seconds(repeat, [&] { operands.forward(plan); });
        result.backward_seconds = median_seconds(repeat, [&] { operands.backward(plan); });
        const auto pairs = static_cast<double>(plan.visible_pairs);
        result.tile_share = plan.visible_share();
        result.pair_share =
            pairs / static_cast<double>(std::max<int64_t>(mask.batch * mask.heads * mask.rows * mask.columns, 1));
        result.forward_flops = 4 * pairs * static_cast<double>(size.head_dim * (size.heads / mask.heads));
        result.backward_flops = 2.5 * result.forward_flops;
    });
    return result;
}

AttentionErrors check_flashmask(const ColumnMask& mask, const AttentionSize& size) {
    AttentionErrors errors{};
    dispatch_float(size.dtype, [&]<typename T>() {
        Operands<T> x(mask, size);
        const TilePlan plan = make_tile_plan(mask, size.tile_rows, size.tile_columns);
        x.forward(plan);
        x.backward(plan);
        DenseAttention exact{.batch = x.batch,
                             .rows = x.rows,
                             .columns = x.columns,
                             .heads = size.heads,
                             .kv_heads = size.kv_heads,
                             .head_dim = size.head_dim,
                             .scale = x.scale,
                             .q = widened(x.q),
                             .k = widened(x.k),
                             .v = widened(x.v),
                             .dout = widened(x.dout)};
        dense_attention(exact, mask);
        errors = {worst_error(x.out, exact.out), worst_error(x.lse, exact.lse), worst_error(x.dq, exact.dq),
                  worst_error(x.dk, exact.dk), worst_error(x.dv, exact.dv)};
    });
    return errors;
}

}  // namespace colonnade
