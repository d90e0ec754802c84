#include "train/log/curve_picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/device/error.h"
#include "train/log/canvas.h"

namespace colonnade {
namespace {

constexpr Color paper{255, 255, 255}, grid{229, 231, 235}, axis{156, 163, 175}, ink{55, 65, 81};
constexpr std::array<Color, 6> inks = {
    {{37, 99, 235}, {234, 88, 12}, {22, 163, 74}, {147, 51, 234}, {13, 148, 136}, {220, 38, 38}}};
constexpr size_t few_points = 40;

Series finite_points(const Series& series) {
    Series kept{.name = series.name, .steps = {}, .values = {}};
    for (size_t i = 0; i < series.values.size(); ++i) {
        if (!std::isfinite(series.values[i])) continue;
        kept.steps.push_back(series.steps[i]);
        kept.values.push_back(series.values[i]);
    }
    return kept;
}

/// Mean over a window centred on each point; the window shrinks towards the ends to stay centred.
std::vector<double> running_mean(const std::vector<double>& values, size_t half_window) {
    std::vector<double> sums(values.size() + 1, 0.0), means(values.size());
    for (size_t i = 0; i < values.size(); ++i) sums[i + 1] = sums[i] + values[i];
    for (size_t i = 0; i < values.size(); ++i) {
        const size_t half = std::min({half_window, i, values.size() - 1 - i});
        means[i] = (sums[i + half + 1] - sums[i - half]) / static_cast<double>(2 * half + 1);
    }
    return means;
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

std::vector<std::string> tick_labels(const std::vector<double>& ticks) {
    const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
    const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
    std::vector<std::string> labels;
    labels.reserve(ticks.size());
    for (const double tick : ticks) labels.push_back(fmt::format("{:.{}f}", tick, decimals));
    return labels;
}

/// The rectangle of the plot on the canvas and the ranges it shows.
struct Plot {
    int left, top, width, height;
    Interval x, y;

    Point point(double step, double value) const {
        return {left + x.share(step) * width, top + (1 - y.share(value)) * height};
    }
    std::vector<Point> points(const std::vector<double>& steps, const std::vector<double>& values) const {
        std::vector<Point> points;
        for (size_t i = 0; i < steps.size(); ++i) points.push_back(point(steps[i], values[i]));
        return points;
    }
};

void draw_axes(Canvas& canvas, const Plot& plot, int scale) {
    const int cap = Canvas::text_height(scale), bottom = plot.top + plot.height;
    const std::vector<double> values = round_ticks(plot.y.low, plot.y.high, plot.height / 60);
    const std::vector<std::string> value_labels = tick_labels(values);
    for (size_t i = 0; i < values.size(); ++i) {
        const int y = static_cast<int>(plot.point(plot.x.low, values[i]).y);
        canvas.fill(plot.left, y, plot.width, 1, grid);
        canvas.text(plot.left - 6 * scale - Canvas::text_width(value_labels[i], scale), y - cap / 2, value_labels[i],
                    ink, scale);
    }
    const std::vector<double> steps = round_ticks(plot.x.low, plot.x.high, plot.width / 130);
    const std::vector<std::string> step_labels = tick_labels(steps);
    for (size_t i = 0; i < steps.size(); ++i) {
        const int x = static_cast<int>(plot.point(steps[i], plot.y.low).x);
        canvas.fill(x, plot.top, 1, plot.height, grid);
        canvas.fill(x, bottom, 1, 3 * scale, axis);
        canvas.text(x - Canvas::text_width(step_labels[i], scale) / 2, bottom + 6 * scale, step_labels[i], ink, scale);
    }
    canvas.fill(plot.left, plot.top, 1, plot.height, axis);
    canvas.fill(plot.left, bottom, plot.width, 1, axis);
    canvas.text(plot.left + (plot.width - Canvas::text_width("step", scale)) / 2, bottom + 10 * scale + cap, "step",
                ink, scale);
}

void draw_series(Canvas& canvas, const Plot& plot, const Series& series, Color color) {
    const std::vector<Point> points = plot.points(series.steps, series.values);
    if (points.size() <= few_points) {
        canvas.polyline(points, 2.4, color);
        if (points.size() != 2)
            for (const Point& point : points) canvas.disc(point, 4.5, color);
        return;
    }
    canvas.polyline(points, 1.4, color, 0.3);
    canvas.polyline(plot.points(series.steps, running_mean(series.values, points.size() / 100)), 2.6, color);
}

/// Draws the legend at the top right, where a falling loss leaves room.
void draw_legend(Canvas& canvas, const Plot& plot, const std::vector<Series>& series, int scale) {
    const int line = 14 * scale, swatch = 14 * scale, padding = 6 * scale;
    int text_width = 0;
    for (const Series& each : series) text_width = std::max(text_width, Canvas::text_width(each.name, scale));
    const int width = swatch + text_width + 3 * padding, height = static_cast<int>(series.size()) * line + padding;
    const int left = plot.left + plot.width - width - padding, top = plot.top + padding;
    canvas.fill(left, top, width, height, grid);
    canvas.fill(left + 1, top + 1, width - 2, height - 2, paper);
    for (size_t i = 0; i < series.size(); ++i) {
        const double y = top + padding / 2.0 + (static_cast<double>(i) + 0.5) * line;
        canvas.polyline({{double(left + padding), y}, {double(left + padding + swatch), y}}, 1.5 * scale,
                        inks[i % inks.size()]);
        canvas.text(left + swatch + 2 * padding, static_cast<int>(y) - Canvas::text_height(scale) / 2, series[i].name,
                    ink, scale);
    }
}

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

std::vector<double> round_ticks(double low, double high, int count) {
    const double rough = (high - low) / std::max(count, 1);
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double factor : {5.0, 2.0, 1.0})
        if (factor * power >= rough * 0.999) step = factor * power;
    std::vector<double> ticks;
    // Above 2^53 steps of 1 vanish in `n`, so the number of ticks is bounded.
    const size_t most = 10 * static_cast<size_t>(std::max(count, 1));
    for (double n = std::ceil(low / step - 1e-9); n * step <= high + 1e-9 * step && ticks.size() < most; ++n)
        ticks.push_back(n * step + 0.0);
    return ticks;
}

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

void draw_curves(const std::string& path, const std::vector<Series>& series, const CurvePicture& picture) {
    require(picture.width >= 400 && picture.height >= 300, "a curve picture of {} x {} pixels is too small",
            picture.width, picture.height);
    const auto [finite, steps, values] = drawable(series);
    if (steps.low > steps.high) fail(Exit::data, "{}: there are no points to draw", path);

    constexpr int scale = 2;
    const int title_height = picture.title.empty() ? 0 : 20 * scale;
    Plot plot{.left = 0,
              .top = 12 * scale + title_height,
              .width = 0,
              .height = 0,
              .x = steps.widened(0),
              .y = values.widened(0.05)};
    plot.height = picture.height - plot.top - 38 * scale;
    int label_width = 0;
    for (const std::string& label : tick_labels(round_ticks(plot.y.low, plot.y.high, plot.height / 60)))
        label_width = std::max(label_width, Canvas::text_width(label, scale));
    plot.left = label_width + 18 * scale;
    plot.width = picture.width - plot.left - 20 * scale;

    Canvas canvas(picture.width, picture.height, paper);
    canvas.text(plot.left, 12 * scale, picture.title, ink, scale);
    draw_axes(canvas, plot, scale);
    for (size_t i = 0; i < finite.size(); ++i) draw_series(canvas, plot, finite[i], inks[i % inks.size()]);
    draw_legend(canvas, plot, finite, scale);
    canvas.write_png(path);
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
