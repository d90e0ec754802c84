#include "attention/mask.h"

#include <optional>

#include "attention/position_runs.h"

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

/// Also hides the rows in `more` from one column. Returns false if the hidden rows need more than two ranges; `more`
/// then holds these ranges. Rows that the causal rule hides need no range.
bool hide(ColumnMask::Bounds& x, std::vector<RowRange>& more, int32_t causal_rows, int32_t rows) {
    more.push_back({x.uts, x.ute});
    more.push_back({x.lts, x.lte});
    std::erase_if(more, [&](const RowRange& r) { return r.begin >= r.end || r.end <= causal_rows; });
    std::ranges::sort(more, {}, &RowRange::begin);
    size_t kept = 0;
    for (const RowRange& r : more) {
        if (kept > 0 && r.begin <= more[kept - 1].end)
            more[kept - 1].end = std::max(more[kept - 1].end, r.end);
        else
            more[kept++] = r;
    }
    more.resize(kept);
    if (kept > 2) return false;
    const RowRange lower = kept > 0 ? more[kept - 1] : RowRange{rows, rows},
                   upper = kept > 1 ? more[0] : RowRange{0, 0};
    x = {lower.begin, lower.end, upper.begin, upper.end};
    return true;
}

/// The mask with these bounds, in the narrowest form that can express them.
ColumnMask with_bounds(const ColumnMask& mask, const std::vector<ColumnMask::Bounds>& bounds) {
    auto form = MaskVectors::lts;
    for (const auto& x : bounds) {
        if (x.lte != mask.rows) form = widest(form, MaskVectors::lts_lte);
        if (x.uts != x.ute) form = MaskVectors::all;
    }
    ColumnMask result = mask;
    assign(result, form, bounds);
    return result;
}

void check_window(const ColumnMask& mask, int64_t window) {
    if (!mask.causal) fail(Exit::config, "a sliding window of {} needs a causal mask", window);
    if (window < 1) fail(Exit::config, "a sliding window of {}: expected at least 1 key", window);
}

void check_positions(const ColumnMask& mask) {
    if (mask.row_positions.empty()) {
        if (mask.position_window != 0)
            fail(Exit::data, "column mask: position_window is {} without row_positions, expected 0",
                 mask.position_window);
        return;
    }
    constexpr int64_t most = ColumnMask::max_position;
    if (mask.rows != mask.columns || std::ssize(mask.row_positions) != mask.batch * mask.rows)
        fail(
            Exit::data,
            "column mask: {} row_positions for batch {} x {} rows x {} columns, expected one for each row, and as many "
            "columns as rows",
            mask.row_positions.size(), mask.batch, mask.rows, mask.columns);
    if (mask.position_window < 1 || mask.position_window > most)
        fail(Exit::data, "column mask: position_window is {}, expected 1..{}", mask.position_window, most);
    for (size_t i = 0; i < mask.row_positions.size(); ++i)
        if (mask.row_positions[i] < 0 || mask.row_positions[i] > most)
            fail(Exit::data, "column mask: row_positions[batch {}, row {}] is {}, expected 0..{}",
                 static_cast<int64_t>(i) / mask.rows, static_cast<int64_t>(i) % mask.rows, mask.row_positions[i], most);
}

[[noreturn]] void refuse_window(int64_t window, int64_t column, const std::vector<RowRange>& hidden) {
    std::string ranges;
    for (const RowRange& r : hidden) ranges += fmt::format("{}[{}, {})", ranges.empty() ? "" : ", ", r.begin, r.end);
    fail(Exit::config,
         "a sliding window of {} over column {} needs {} hidden row ranges, a column mask has at most two: {}", window,
         column, hidden.size(), ranges);
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
    check_positions(*this);
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

bool ColumnMask::sees(int64_t b, int64_t h, int64_t row, int64_t column) const {
    const Bounds x = bounds(b, h, column);
    if ((x.lts <= row && row < x.lte) || (x.uts <= row && row < x.ute) || row < causal_rows(column)) return false;
    if (position_window == 0) return true;
    const int32_t* const position = row_positions.data() + b * rows;
    return position[row] - position[column] < position_window;
}

std::vector<uint8_t> ColumnMask::dense() const {
    std::vector<uint8_t> visible;
    visible.reserve(static_cast<size_t>(batch * heads * rows * columns));
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t h = 0; h < heads; ++h)
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < columns; ++j) visible.push_back(sees(b, h, i, j));
    return visible;
}

ColumnMask ColumnMask::with_sliding_window(int64_t window) const {
    check_window(*this, window);
    auto bounds = all_bounds(*this);
    const auto end = static_cast<int32_t>(rows);
    std::vector<RowRange> hidden;
    for (size_t at = 0; at < bounds.size(); ++at) {
        const auto j = static_cast<int64_t>(at) % columns;
        // Row i is past the window of column j from i = self + window on; written so that no window overflows.
        const int64_t self = j - (columns - rows);
        const auto past = static_cast<int32_t>(window > rows - self ? rows : std::max<int64_t>(self + window, 0));
        hidden = {{past, end}};
        if (!hide(bounds[at], hidden, causal_rows(j), end)) refuse_window(window, j, hidden);
    }
    return with_bounds(*this, bounds);
}

ColumnMask ColumnMask::with_sliding_window(int64_t window, std::span<const int32_t> positions) const {
    check_window(*this, window);
    require(rows == columns && positions.size() == static_cast<size_t>(batch * rows),
            "{} positions for a mask of {} x {} x {}", positions.size(), batch, rows, columns);
    ColumnMask by_positions = *this;
    if (position_window > 0) {
        if (!std::ranges::equal(row_positions, positions))
            fail(Exit::config, "a sliding window of {} by other positions than those of the mask's window of {}",
                 window, position_window);
        by_positions.position_window = static_cast<int32_t>(std::min<int64_t>(window, position_window));
        return by_positions;
    }
    auto bounds = all_bounds(*this);
    const auto end = static_cast<int32_t>(rows);
    std::vector<RowRange> hidden;
    std::optional<PositionRuns> runs;
    for (size_t at = 0; at < bounds.size(); ++at) {
        const auto j = static_cast<int64_t>(at) % columns, row = static_cast<int64_t>(at) / (heads * columns) * rows;
        if (at % static_cast<size_t>(heads * columns) == 0)
            runs.emplace(positions.subspan(static_cast<size_t>(row), static_cast<size_t>(rows)));
        Bounds& x = bounds[at];
        const int32_t seen_until = x.lte == end ? x.lts : end;  // all later rows are hidden already
        const int64_t limit = positions[static_cast<size_t>(row + j)] + std::min<int64_t>(window, INT32_MAX);
        hidden.clear();
        runs->divide(static_cast<int32_t>(j), seen_until, limit, [&](RowRange, RowRange past) {
            if (past.begin < past.end) hidden.push_back(past);
        });
        if (hide(x, hidden, causal_rows(j), end)) continue;
        by_positions.row_positions.assign(positions.begin(), positions.end());
        by_positions.position_window = static_cast<int32_t>(window);
        return by_positions;
    }
    return with_bounds(*this, bounds);
}

ColumnMask stack(const std::vector<ColumnMask>& masks) {
    require(!masks.empty(), "stack: expected at least one mask");
    ColumnMask result = masks.front();
    result.batch = 0;
    auto form = MaskVectors::none;
    std::vector<ColumnMask::Bounds> bounds;
    for (const ColumnMask& m : masks) result.position_window = std::max(result.position_window, m.position_window);
    result.row_positions.clear();
    for (const ColumnMask& m : masks) {
        require(m.rows == result.rows && m.columns == result.columns && m.heads == result.heads &&
                    m.causal == result.causal,
                "stack of masks that differ: {} x {}, {} heads, causal {} after {} x {}, {} heads, causal {}", m.rows,
                m.columns, m.heads, m.causal, result.rows, result.columns, result.heads, result.causal);
        require(m.position_window == 0 || m.position_window == result.position_window,
                "stack of masks with windows of {} and {} positions", m.position_window, result.position_window);
        // Without the rule all positions are 0: a distance of 0 is within any window.
        if (m.position_window > 0)
            result.row_positions.insert(result.row_positions.end(), m.row_positions.begin(), m.row_positions.end());
        else if (result.position_window > 0)
            result.row_positions.resize(result.row_positions.size() + static_cast<size_t>(m.batch * m.rows));
        const auto more = all_bounds(m);
        bounds.insert(bounds.end(), more.begin(), more.end());
        form = widest(form, m.vectors);
        result.batch += m.batch;
    }
    assign(result, form, bounds);
    return result;
}

}  // namespace colonnade
