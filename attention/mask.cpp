#include "attention/mask.h"

namespace colonnade {
namespace {

struct Carried {
    bool lts, lte, uts, ute;
};

Carried carried_by(MaskVectors v) {
    const bool all = v == MaskVectors::all;
    return {v != MaskVectors::none, all || v == MaskVectors::lts_lte, all, all || v == MaskVectors::lts_ute};
}

MaskVectors widest(MaskVectors a, MaskVectors b) {
    if (a == MaskVectors::none || a == b) return b;
    if (b == MaskVectors::none) return a;
    if (a == MaskVectors::lts) return b;
    if (b == MaskVectors::lts) return a;
    return MaskVectors::all;
}

/// Writes `bounds`, one entry per batch, head and column, in the form `vectors`.
void assign(ColumnMask& mask, MaskVectors vectors, const std::vector<ColumnMask::Bounds>& bounds) {
    const auto carried = carried_by(vectors);
    const auto write = [&](bool wanted, std::vector<int32_t>& to, int32_t ColumnMask::Bounds::*field) {
        to.clear();
        if (!wanted) return;
        to.reserve(bounds.size());
        for (const auto& x : bounds) to.push_back(x.*field);
    };
    write(carried.lts, mask.lts, &ColumnMask::Bounds::lts);
    write(carried.lte, mask.lte, &ColumnMask::Bounds::lte);
    write(carried.uts, mask.uts, &ColumnMask::Bounds::uts);
    write(carried.ute, mask.ute, &ColumnMask::Bounds::ute);
    mask.vectors = vectors;
}

std::vector<ColumnMask::Bounds> all_bounds(const ColumnMask& mask) {
    std::vector<ColumnMask::Bounds> bounds;
    bounds.reserve(static_cast<size_t>(mask.batch * mask.heads * mask.columns));
    for (int64_t b = 0; b < mask.batch; ++b)
        for (int64_t h = 0; h < mask.heads; ++h)
            for (int64_t j = 0; j < mask.columns; ++j) bounds.push_back(mask.bounds(b, h, j));
    return bounds;
}

void check_vector(const ColumnMask& mask, const char* name, bool carried, const std::vector<int32_t>& v) {
    const auto expected = static_cast<size_t>(carried ? mask.batch * mask.heads * mask.columns : 0);
    if (v.size() != expected)
        fail(Exit::data, "column mask: {} has {} entries, expected {} (batch {} x heads {} x columns {}, {})", name,
             v.size(), expected, mask.batch, mask.heads, mask.columns,
             carried ? "carried" : "not carried by this mask");
    for (size_t i = 0; i < v.size(); ++i) {
        if (v[i] >= 0 && v[i] <= mask.rows) continue;
        const auto at = static_cast<int64_t>(i);
        fail(Exit::data, "column mask: {}[batch {}, head {}, column {}] is {}, expected 0..{} (the rows)", name,
             at / mask.columns / mask.heads, at / mask.columns % mask.heads, at % mask.columns, v[i], mask.rows);
    }
}

/// Hides the rows of one column from `past` on as well. False where what is hidden then takes more than two ranges.
bool hide_from(ColumnMask::Bounds& x, int32_t past, int32_t causal_rows, int32_t rows) {
    struct Range {
        int32_t begin, end;
        bool empty() const { return begin >= end; }
    };
    Range upper{x.uts, x.ute}, lower{x.lts, x.lte}, window{past, rows};
    // What the causal rule hides anyway needs no range.
    if (upper.end <= causal_rows) upper.end = upper.begin;
    if (lower.end <= causal_rows) lower.end = lower.begin;
    for (Range* r : {&lower, &upper}) {
        if (r->empty() || r->end < window.begin) continue;
        window.begin = std::min(window.begin, r->begin);
        r->end = r->begin;
    }
    if (!upper.empty() && upper.end == lower.begin && !lower.empty()) {
        lower.begin = upper.begin;
        upper.end = upper.begin;
    }
    if (!upper.empty() && !lower.empty() && !window.empty()) return false;
    if (!window.empty()) {
        if (!lower.empty()) upper = lower;
        lower = window;
    } else if (lower.empty()) {
        std::swap(lower, upper);
    }
    if (upper.empty()) upper = {0, 0};
    if (lower.empty()) lower = {rows, rows};
    x = {lower.begin, lower.end, upper.begin, upper.end};
    return true;
}

}  // namespace

ColumnMask::Bounds ColumnMask::bounds(int64_t b, int64_t h, int64_t column) const {
    const auto at = static_cast<size_t>((b * heads + h) * columns + column);
    const auto carried = carried_by(vectors);
    const auto end = static_cast<int32_t>(rows);
    return {carried.lts ? lts[at] : end, carried.lte ? lte[at] : end, carried.uts ? uts[at] : 0,
            carried.ute ? ute[at] : 0};
}

void ColumnMask::validate() const {
    constexpr int64_t limit = ColumnMask::max_length;
    if (batch < 0 || heads < 1 || rows < 0 || columns < 0 || rows > limit || columns > limit)
        fail(Exit::data,
             "column mask: batch {}, heads {}, rows {}, columns {}: expected heads from 1, the others 0..{}", batch,
             heads, rows, columns, limit);
    if (causal && vectors == MaskVectors::lts_ute)
        fail(Exit::data,
             "column mask: causal with lts and ute: a causal mask carries an upper range only with all four vectors");
    const auto carried = carried_by(vectors);
    check_vector(*this, "lts", carried.lts, lts);
    check_vector(*this, "lte", carried.lte, lte);
    check_vector(*this, "uts", carried.uts, uts);
    check_vector(*this, "ute", carried.ute, ute);
    for (int64_t b = 0; b < batch; ++b) {
        for (int64_t h = 0; h < heads; ++h) {
            for (int64_t j = 0; j < columns; ++j) {
                const Bounds x = bounds(b, h, j);
                const char* broken = x.lts > x.lte   ? "lts <= lte"
                                     : x.uts > x.ute ? "uts <= ute"
                                     : x.lts < x.lte && x.uts < x.ute && x.ute > x.lts
                                         ? "the upper range [uts, ute) to end before the lower one [lts, lte) begins"
                                         : nullptr;
                if (broken)
                    fail(Exit::data,
                         "column mask: batch {}, head {}, column {}: lts {}, lte {}, uts {}, ute {}: expected {}", b, h,
                         j, x.lts, x.lte, x.uts, x.ute, broken);
            }
        }
    }
}

std::vector<uint8_t> ColumnMask::dense() const {
    std::vector<uint8_t> visible;
    visible.reserve(static_cast<size_t>(batch * heads * rows * columns));
    for (int64_t b = 0; b < batch; ++b) {
        for (int64_t h = 0; h < heads; ++h) {
            for (int64_t i = 0; i < rows; ++i) {
                for (int64_t j = 0; j < columns; ++j) {
                    const Bounds x = bounds(b, h, j);
                    const bool hidden =
                        (x.lts <= i && i < x.lte) || (x.uts <= i && i < x.ute) || (causal && j > i + (columns - rows));
                    visible.push_back(!hidden);
                }
            }
        }
    }
    return visible;
}

ColumnMask ColumnMask::with_sliding_window(int64_t window) const {
    if (!causal) fail(Exit::config, "a sliding window of {} needs a causal mask", window);
    if (window < 1) fail(Exit::config, "a sliding window of {}: expected at least 1 key", window);
    auto hidden = all_bounds(*this);
    auto form = MaskVectors::lts;
    for (size_t at = 0; at < hidden.size(); ++at) {
        const auto j = static_cast<int64_t>(at) % columns;
        const auto end = static_cast<int32_t>(rows);
        // Written so that no window overflows: row i is past the window of column j from i = j + window - (columns -
        // rows) on.
        const int64_t self = j - (columns - rows);
        const auto past = static_cast<int32_t>(window > rows - self ? rows : std::max<int64_t>(self + window, 0));
        if (!hide_from(hidden[at], past, causal_rows(j), end))
            fail(Exit::config,
                 "a sliding window of {} over column {} leaves three hidden row ranges, a column mask says two: [{}, "
                 "{}), "
                 "[{}, {}) and from {} on",
                 window, j, hidden[at].uts, hidden[at].ute, hidden[at].lts, hidden[at].lte, past);
        if (hidden[at].lte != end) form = widest(form, MaskVectors::lts_lte);
        if (hidden[at].uts != hidden[at].ute) form = MaskVectors::all;
    }
    ColumnMask result = *this;
    assign(result, form, hidden);
    return result;
}

ColumnMask stack(const std::vector<ColumnMask>& masks) {
    require(!masks.empty(), "stack of no masks");
    ColumnMask result = masks.front();
    result.batch = 0;
    auto form = MaskVectors::none;
    std::vector<ColumnMask::Bounds> bounds;
    for (const ColumnMask& m : masks) {
        require(m.rows == result.rows && m.columns == result.columns && m.heads == result.heads &&
                    m.causal == result.causal,
                "stack of unlike masks: {} x {}, {} heads, causal {} after {} x {}, {} heads, causal {}", m.rows,
                m.columns, m.heads, m.causal, result.rows, result.columns, result.heads, result.causal);
        const auto more = all_bounds(m);
        bounds.insert(bounds.end(), more.begin(), more.end());
        form = widest(form, m.vectors);
        result.batch += m.batch;
    }
    assign(result, form, bounds);
    return result;
}

}  // namespace colonnade
