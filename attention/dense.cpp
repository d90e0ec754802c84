#include "attention/dense.h"

#include <cmath>
#include <limits>

namespace colonnade {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

double dot(const double* a, const double* b, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < n; ++d) sum += a[d] * b[d];
    return sum;
}

void add(double* to, double factor, const double* from, int64_t n) {
#pragma omp simd
    for (int64_t d = 0; d < n; ++d) to[d] += factor * from[d];
}

double rounded(double value, bool round) {
    return round ? float_from_bf16(bf16_from_float(static_cast<float>(value))) : value;
}

void round_all(std::vector<double>& values) {
    for (double& value : values) value = rounded(value, true);
}

/// One row of softmax(S): p holds the scores, -inf if hidden, and receives the probabilities. Returns lse.
double softmax(std::vector<double>& p) {
    double max = -infinity, sum = 0;
    for (const double s : p) max = std::max(max, s);
    for (double& s : p) sum += s = max == -infinity ? 0 : std::exp(s - max);
    if (sum == 0) return -infinity;
    for (double& s : p) s /= sum;
    return max + std::log(sum);
}

/// Sums for one key/value head, [columns, head_dim].
struct KeySums {
    std::vector<double> dk, dv;
};

/// Rows [first, last) of one query head; adds their shares of dk and dv to `sums`.
void attend(DenseAttention& a, const uint8_t* visible, int64_t b, int64_t h, int64_t first, int64_t last,
            KeySums& sums) {
    const int64_t dim = a.head_dim, kv = h / (a.heads / a.kv_heads);
    const auto of_query = [&](auto& v, int64_t i) { return v.data() + ((b * a.rows + i) * a.heads + h) * dim; };
    const auto of_key = [&](auto& v, int64_t j) { return v.data() + ((b * a.columns + j) * a.kv_heads + kv) * dim; };
    std::vector<double> p(static_cast<size_t>(a.columns));
    for (int64_t i = first; i < last; ++i) {
        for (int64_t j = 0; j < a.columns; ++j)
            p[static_cast<size_t>(j)] =
                visible[i * a.columns + j] ? a.scale * dot(of_query(a.q, i), of_key(a.k, j), dim) : -infinity;
        a.lse[static_cast<size_t>((b * a.heads + h) * a.rows + i)] = softmax(p);
        for (int64_t j = 0; j < a.columns; ++j)
            if (visible[i * a.columns + j])
                add(of_query(a.out, i), rounded(p[static_cast<size_t>(j)], a.round_bf16), of_key(a.v, j), dim);
        for (int64_t d = 0; d < dim; ++d) of_query(a.out, i)[d] = rounded(of_query(a.out, i)[d], a.round_bf16);
        if (a.dout.empty()) continue;
        const double delta = dot(of_query(a.dout, i), of_query(a.out, i), dim);
        for (int64_t j = 0; j < a.columns; ++j) {
            if (!visible[i * a.columns + j]) continue;
            const double probability = p[static_cast<size_t>(j)];
            const double ds = probability * (dot(of_query(a.dout, i), of_key(a.v, j), dim) - delta);
            const double slope = a.scale * rounded(ds, a.round_bf16);
            add(sums.dv.data() + j * dim, rounded(probability, a.round_bf16), of_query(a.dout, i), dim);
            add(sums.dk.data() + j * dim, slope, of_query(a.q, i), dim);
            add(of_query(a.dq, i), slope, of_key(a.k, j), dim);
        }
    }
}

/// Distance of a from the oracle b: the largest difference, and the largest magnitude in b.
struct Distance {
    double error = 0, peak = 0;

    Distance(std::span<const double> a, std::span<const double> b) {
        require(a.size() == b.size(), "{} values against {}", a.size(), b.size());
        for (size_t i = 0; i < a.size(); ++i) {
            if (std::isfinite(b[i])) peak = std::max(peak, std::abs(b[i]));
            if (a[i] == b[i]) continue;
            const double difference = std::abs(a[i] - b[i]);
            error = std::isfinite(difference) ? std::max(error, difference) : infinity;
            if (!std::isfinite(error)) return;
        }
    }
    double relative() const { return relative(error); }
    double relative(double x) const { return peak == 0 ? x : x / peak; }
};

}  // namespace

void dense_attention(DenseAttention& a, const ColumnMask& mask) {
    require(mask.batch == a.batch && mask.rows == a.rows && mask.columns == a.columns && a.heads % mask.heads == 0 &&
                a.heads % a.kv_heads == 0,
            "dense attention of {} x {} with a mask of {} x {}", a.rows, a.columns, mask.rows, mask.columns);
    const auto queries = static_cast<size_t>(a.batch * a.rows * a.heads * a.head_dim);
    const auto keys = static_cast<size_t>(a.batch * a.columns * a.kv_heads * a.head_dim);
    require(a.q.size() == queries && a.k.size() == keys && a.v.size() == keys &&
                (a.dout.empty() || a.dout.size() == queries),
            "dense attention: inputs of {}, {} and {} elements, expected {} and {}", a.q.size(), a.k.size(), a.v.size(),
            queries, keys);
    a.out.assign(queries, 0);
    a.lse.assign(static_cast<size_t>(a.batch * a.heads * a.rows), 0);
    if (a.dout.size() == queries) {
        a.dq.assign(queries, 0);
        a.dk.assign(keys, 0);
        a.dv.assign(keys, 0);
    }
    const auto visible = mask.dense();
    // Query heads of one key/value head add to the same dk and dv. Rows are divided into a fixed number of parts, each
    // with sums of its own that are added up in order, so that results do not depend on the threads. A thread holds the
    // sums of one part.
    constexpr int64_t parts = 16;
    const int64_t group = a.heads / a.kv_heads, key_size = a.dout.empty() ? 0 : a.columns * a.head_dim;
#pragma omp parallel for collapse(3) ordered schedule(dynamic)
    for (int64_t b = 0; b < a.batch; ++b)
        for (int64_t kv = 0; kv < a.kv_heads; ++kv)
            for (int64_t part = 0; part < parts; ++part) {
                KeySums own{std::vector<double>(static_cast<size_t>(key_size)),
                            std::vector<double>(static_cast<size_t>(key_size))};
                for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
                    const int64_t mask_head = b * mask.heads + h / (a.heads / mask.heads);
                    attend(a, visible.data() + mask_head * a.rows * a.columns, b, h, part * a.rows / parts,
                           (part + 1) * a.rows / parts, own);
                }
#pragma omp ordered
                for (int64_t from = 0; from < key_size; from += a.head_dim) {
                    const int64_t to = (b * a.columns * a.kv_heads + kv) * a.head_dim + from * a.kv_heads;
                    add(a.dk.data() + to, 1, own.dk.data() + from, a.head_dim);
                    add(a.dv.data() + to, 1, own.dv.data() + from, a.head_dim);
                }
            }
    if (a.round_bf16)
        for (auto* gradient : {&a.dq, &a.dk, &a.dv}) round_all(*gradient);
}

bool AttentionErrors::within(const AttentionErrors& bounds) const {
    return out <= bounds.out && lse <= bounds.lse && dq <= bounds.dq && dk <= bounds.dk && dv <= bounds.dv;
}

AttentionCheck compare_with_dense(DenseAttention inputs, const ColumnMask& mask, DType dtype,
                                  std::span<const AttentionResults> runs) {
    DenseAttention exact = inputs;
    dense_attention(exact, mask);
    AttentionCheck check{};
    const auto worsen = [](double& error, const std::vector<double>& found, const std::vector<double>& oracle) {
        error = std::max(error, Distance(found, oracle).relative());
    };
    for (const AttentionResults& run : runs) {
        worsen(check.errors.out, run.out, exact.out);
        worsen(check.errors.lse, run.lse, exact.lse);
        worsen(check.errors.dq, run.dq, exact.dq);
        worsen(check.errors.dk, run.dk, exact.dk);
        worsen(check.errors.dv, run.dv, exact.dv);
    }
    if (dtype != DType::bf16) {
        const double bound = dtype == DType::f32 ? 2e-5 : 1e-12;
        check.bounds = {bound, bound, bound, bound, bound};
        return check;
    }
    inputs.round_bf16 = true;
    dense_attention(inputs, mask);
    // f32: operands of magnitude r make scores of magnitude r^2, with errors in their last bits; probabilities have
    // relative errors of that size. dk and dv are sums over the rows.
    double r = 0;
    for (const auto* operand : {&inputs.q, &inputs.k, &inputs.v, &inputs.dout})
        for (const double x : *operand) r = std::max(r, std::abs(x));
    const int64_t group = inputs.heads / inputs.kv_heads;
    const double share = 0x1p-21 * (1 + r * r), rows = std::sqrt(static_cast<double>(mask.rows * group));
    const auto bound = [](const std::vector<double>& yardstick, const std::vector<double>& oracle, double floor) {
        const Distance distance(yardstick, oracle);
        return 2 * distance.relative() + distance.relative(floor);
    };
    check.bounds = {bound(inputs.out, exact.out, share * r),
                    1e-5 * std::max(1.0, Distance(exact.lse, exact.lse).relative(1)),
                    bound(inputs.dq, exact.dq, share * r * r * r), bound(inputs.dk, exact.dk, share * r * r * r * rows),
                    bound(inputs.dv, exact.dv, share * r * rows)};
    return check;
}

}  // namespace colonnade
