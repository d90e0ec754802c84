#include "train/log/curve_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "train/log/ticks.h"

namespace colonnade {
namespace {

Series finite_points(const Series& series) {
    Series kept{.name = series.name, .steps = {}, .values = {}};
    for (size_t i = 0; i < series.values.size(); ++i) {
        if (!std::isfinite(series.values[i])) continue;
        kept.steps.push_back(series.steps[i]);
        kept.values.push_back(series.values[i]);
    }
    return kept;
}

struct Interval {
    double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

    void include(const std::vector<double>& values) {
        for (const double value : values) {
            low = std::min(low, value);
            high = std::max(high, value);
        }
    }
    /// Widened by a share of its length at both ends. Values that differ by rounding alone are one value, which becomes a
    /// range of length 1, or of a millionth of it.
    Interval widened(double share) const {
        const double size = std::max(std::abs(low), std::abs(high));
        const bool flat = high - low <= 1e-12 * size;
        const double margin = flat ? std::max(0.5, 1e-6 * size) : share * (high - low);
        return {low - margin, high + margin};
    }
    double share(double value) const { return (value - low) / (high - low); }
};

/// A height for every dot column between the first and the last point: the mean of the points in that column, or the
/// value on the line between its neighbours. NaN outside.
std::vector<double> columns_of(const Series& series, const Interval& steps, int columns) {
    const auto count = static_cast<size_t>(columns);
    std::vector<double> sums(count, 0.0), points(count, 0.0);
    std::vector<double> heights(count, std::numeric_limits<double>::quiet_NaN());
    for (size_t i = 0; i < series.steps.size(); ++i) {
        const auto column = static_cast<size_t>(std::lround(steps.share(series.steps[i]) * (columns - 1)));
        sums[column] += series.values[i];
        points[column] += 1;
    }
    size_t last = count;
    for (size_t column = 0; column < count; ++column) {
        if (points[column] == 0) continue;
        heights[column] = sums[column] / points[column];
        for (size_t gap = last + 1; gap < column; ++gap) {
            const double share = static_cast<double>(gap - last) / static_cast<double>(column - last);
            heights[gap] = heights[last] + share * (heights[column] - heights[last]);
        }
        last = column;
    }
    return heights;
}

/// A grid of dots, 2 x 4 of them per character.
class Dots {
  public:
    Dots(int columns, int rows, bool utf8)
        : columns_(columns), utf8_(utf8), cells_(static_cast<size_t>(columns * rows)) {}

    void set(int x, int y) {
        constexpr uint8_t bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
        cells_[static_cast<size_t>(y / 4 * columns_ + x / 2)] |= bits[y % 4][x % 2];
    }
    /// An o instead of the dots of a character.
    void set_point(int x, int y) { cells_[static_cast<size_t>(y / 4 * columns_ + x / 2)] |= point; }
    /// A row of characters: in UTF-8 U+2800 plus the bits of the dots, in ASCII the halves of a character.
    std::string row(int row) const {
        std::string text;
        for (int column = 0; column < columns_; ++column) {
            const int bits = cells_[static_cast<size_t>(row * columns_ + column)];
            constexpr int upper = 0x1b, lower = 0xe4;
            if (bits & point)
                text += 'o';
            else if (utf8_)
                text += {static_cast<char>(0xe2), static_cast<char>(0xa0 | bits >> 6),
                         static_cast<char>(0x80 | (bits & 0x3f))};
            else
                text += bits & upper ? bits & lower ? ':' : '\'' : bits ? '.' : ' ';
        }
        return text;
    }

  private:
    static constexpr int point = 0x100;
    int columns_;
    bool utf8_;
    std::vector<int> cells_;
};

}  // namespace

/// The finite points of curves, and the ranges that they cover.
struct Drawable {
    std::vector<Series> finite;
    Interval steps, values;
};
static Drawable drawable(const std::vector<Series>& series) {
    Drawable all;
    for (const Series& each : series) {
        all.finite.push_back(finite_points(each));
        all.steps.include(all.finite.back().steps);
        all.values.include(all.finite.back().values);
    }
    return all;
}

/// The rows of a curve in text: where values are, and the labels beside them.
struct TextRows {
    int count;
    Interval y;
    std::vector<std::string> labels{};
    int label_width = 0;

    TextRows(int rows, const Interval& values) : count(rows), y(values), labels(static_cast<size_t>(rows)) {
        const std::vector<double> ticks = round_ticks(y.low, y.high, rows / 2);
        const std::vector<std::string> texts = tick_labels(ticks);
        for (size_t i = 0; i < ticks.size(); ++i) {
            labels[static_cast<size_t>(dot(ticks[i]) / 4)] = texts[i];
            label_width = std::max(label_width, static_cast<int>(texts[i].size()));
        }
    }
    int dot(double value) const { return static_cast<int>(std::lround((1 - y.share(value)) * (4 * count - 1))); }
};

static void draw_line(Dots& dots, const std::vector<double>& heights, const TextRows& rows) {
    for (size_t column = 0; column < heights.size(); ++column) {
        if (std::isnan(heights[column])) continue;
        const double before = column > 0 ? heights[column - 1] : heights[column];
        const int to = rows.dot(heights[column]), from = std::isnan(before) ? to : rows.dot(before);
        dots.set(static_cast<int>(column), to);
        for (int dot = std::min(from, to) + 1; dot < std::max(from, to); ++dot) dots.set(static_cast<int>(column), dot);
    }
}

std::string curve_text(const std::vector<Series>& series, const CurveText& size) {
    const auto [finite, steps, values] = drawable(series);
    if (finite.empty() || finite[0].steps.empty()) return "";
    const Interval x = steps.widened(0);
    const TextRows rows(size.rows, values.widened(0));
    const int columns = std::max(size.columns - rows.label_width - 2, 1);
    Dots dots(columns, size.rows, size.utf8);
    draw_line(dots, columns_of(finite[0], x, 2 * columns), rows);
    std::string title = finite[0].name;
    for (size_t s = 1; s < finite.size(); ++s) {
        if (!finite[s].steps.empty()) title += ", o " + finite[s].name;
        for (size_t i = 0; i < finite[s].steps.size(); ++i)
            dots.set_point(static_cast<int>(std::lround(x.share(finite[s].steps[i]) * (2 * columns - 1))),
                           rows.dot(finite[s].values[i]));
    }

    const int width = rows.label_width;
    std::string text = fmt::format("{:>{}}   {}\n", "", width, title);
    for (int row = 0; row < size.rows; ++row) {
        const std::string& label = rows.labels[static_cast<size_t>(row)];
        const char* const axis = label.empty() ? (size.utf8 ? "│" : "|") : (size.utf8 ? "┤" : "+");
        text += fmt::format("{:>{}} {}{}\n", label, width, axis, dots.row(row));
    }
    text += fmt::format("{:>{}} {}", "", width, size.utf8 ? "└" : "+");
    for (int column = 0; column < columns; ++column) text += size.utf8 ? "─" : "-";
    const std::string first = fmt::format("{:.0f}", steps.low), last = fmt::format("step {:.0f}", steps.high);
    return text + fmt::format("\n{:>{}}  {}{:>{}}\n", "", width, first, last,
                              std::max(columns - static_cast<int>(first.size()), 0));
}

}  // namespace colonnade
