#include "train/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/device/human_units.h"
#include "train/log/ticks.h"
#include "train/report/html.h"

namespace colonnade {
namespace {

constexpr double log_factor = 50;
constexpr size_t few_points = 40;
constexpr double letter = 7;  ///< pixels of a character, about

/// An axis from values to shares of its length.
struct Axis {
    double low = 0, high = 1;
    bool logarithmic = false;

    double share(double value) const {
        return logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    }
};

struct Tick {
    double value;
    std::string label;
};

/// Short: "2e-05", "0.25", "12.3k".
std::string short_number(double value) {
    if (std::abs(value) >= 1e4) return human_count(value);
    return fmt::format("{:.4g}", value);
}

std::vector<Tick> ticks_of(const Axis& axis, int count) {
    std::vector<Tick> ticks;
    if (axis.logarithmic) {
        const bool decades_do = std::log10(axis.high / axis.low) > 3;
        for (double power = std::pow(10, std::floor(std::log10(axis.low))); power <= axis.high; power *= 10)
            for (const double factor : {1.0, 2.0, 5.0})
                if (const double value = factor * power;
                    value >= axis.low && value <= axis.high && (factor == 1 || !decades_do))
                    ticks.push_back({value, short_number(value)});
        return ticks;
    }
    const std::vector<double> values = round_ticks(axis.low, axis.high, count);
    const std::vector<std::string> labels = tick_labels(values);
    const double size = std::max(std::abs(axis.low), std::abs(axis.high));
    for (size_t i = 0; i < values.size(); ++i)
        ticks.push_back({values[i], size < 1e-3 || size >= 1e4 ? short_number(values[i]) : labels[i]});
    return ticks;
}

/// A range widened at both ends. Values that differ by rounding alone are one value.
Axis around(double low, double high) {
    const double size = std::max(std::abs(low), std::abs(high));
    const bool flat = high - low <= 1e-12 * size;
    const double margin = flat ? std::max(0.05 * size, 1e-6) : 0.05 * (high - low);
    return {low - margin, high + margin};
}

struct DrawnLine {
    const ChartLine& line;
    std::vector<CurvePoint> points, means;  ///< means: none if each value has a marker
};

/// Means over a window of 1/50 of the points, which shrinks towards the ends to stay centred.
std::vector<CurvePoint> running_mean(const std::vector<CurvePoint>& points) {
    std::vector<CurvePoint> means = points;
    const size_t half_window = points.size() / 100;
    for (size_t i = 0; i < points.size(); ++i) {
        const size_t half = std::min({half_window, i, points.size() - 1 - i});
        double sum = 0;
        for (size_t j = i - half; j <= i + half; ++j) sum += points[j].value;
        means[i].value = sum / static_cast<double>(2 * half + 1);
    }
    return means;
}

/// What a chart draws: lines, ranges, and the rectangle of the plot.
struct Plot {
    std::vector<DrawnLine> lines;
    Axis x, y;
    double left = 0, top = 0, width = 0, height = 0;

    double at_step(double step) const { return left + x.share(step) * width; }
    double at_value(double value) const { return top + (1 - y.share(value)) * height; }
    std::string points(const std::vector<CurvePoint>& points) const {
        std::string text;
        for (const CurvePoint& point : points)
            text += fmt::format("{}{:.1f},{:.1f}", text.empty() ? "" : " ", at_step(point.step), at_value(point.value));
        return text;
    }
};

Plot plot_of(const Chart& chart) {
    Plot plot;
    double first = INFINITY, last = -INFINITY, low = INFINITY, high = -INFINITY;
    for (const ChartLine& line : chart.lines) {
        const Curve& curve = *line.curve;
        if (curve.empty()) continue;
        first = std::min(first, curve.first().step);
        last = std::max(last, curve.last().step);
        low = std::min(low, curve.least().value);
        high = std::max(high, curve.greatest().value);
        DrawnLine drawn{line, curve.outline(chart.spans), {}};
        if (drawn.points.size() > few_points) drawn.means = running_mean(curve.means(chart.spans));
        plot.lines.push_back(std::move(drawn));
    }
    for (const ChartLevel& level : chart.levels) low = std::min(low, level.value), high = std::max(high, level.value);
    plot.x = first == last ? Axis{first - 1, last + 1} : Axis{first, last};
    const bool logarithmic = chart.may_be_logarithmic && low > 0 && high >= log_factor * low;
    plot.y = logarithmic ? Axis{low / 1.2, high * 1.2, true} : around(low, high);
    return plot;
}

std::string legend(const Chart& chart, const Plot& plot, double& y) {
    std::string text;
    double x = plot.left;
    const auto entry = [&](const std::string& swatch, const std::string& name) {
        const double width = 34 + letter * static_cast<double>(name.size());
        if (x > plot.left && x + width > chart.width) x = plot.left, y += 18;
        text += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">{}<text x=\"22\" y=\"4\">{}</text></g>\n", x, y,
                            swatch, escaped(name));
        x += width;
    };
    for (const DrawnLine& drawn : plot.lines)
        entry(fmt::format("<path class=\"line c{}\" d=\"M0 0h16\"/>", drawn.line.color % chart_colors),
              drawn.line.name);
    for (const ChartLevel& level : chart.levels) entry("<path class=\"level\" d=\"M0 0h16\"/>", level.name);
    const auto has = [&](ChartMark::Kind kind) {
        return std::ranges::any_of(chart.marks, [&](const ChartMark& mark) { return mark.kind == kind; });
    };
    if (has(ChartMark::best)) entry("<circle class=\"best\" cx=\"8\" r=\"5\"/>", "best");
    if (has(ChartMark::spike)) entry("<path class=\"spike\" d=\"M8 -5l5 9h-10z\"/>", "spike");
    if (!chart.resumed.empty()) entry("<path class=\"resumed\" d=\"M8 -7v14\"/>", "resumed");
    return text;
}

std::string axes(const Plot& plot, const std::vector<Tick>& values, const std::vector<Tick>& steps) {
    std::string grid, labels;
    const double bottom = plot.top + plot.height;
    for (const Tick& tick : values) {
        const double y = plot.at_value(tick.value);
        grid += fmt::format("M{:.1f} {:.1f}h{:.1f}", plot.left, y, plot.width);
        labels +=
            fmt::format("<text class=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", plot.left - 7, y + 4, tick.label);
    }
    for (const Tick& tick : steps) {
        const double x = plot.at_step(tick.value);
        grid += fmt::format("M{:.1f} {:.1f}v{:.1f}", x, plot.top, plot.height);
        labels += fmt::format("<text class=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", x, bottom + 17, tick.label);
    }
    return fmt::format(
        "<path class=\"grid\" d=\"{}\"/>\n<path class=\"axis\" d=\"M{:.1f} {:.1f}v{:.1f}h{:.1f}\"/>\n{}"
        "<text class=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">step</text>\n",
        grid, plot.left, plot.top, plot.height, plot.width, labels, plot.left + plot.width / 2, bottom + 34);
}

std::string line_shapes(const Plot& plot, const DrawnLine& drawn) {
    const int color = drawn.line.color % chart_colors;
    const auto line = [&](const std::vector<CurvePoint>& points, const char* extra) {
        return fmt::format("<polyline class=\"line c{}{}\" points=\"{}\"/>\n", color, extra, plot.points(points));
    };
    if (!drawn.means.empty()) return line(drawn.points, " pale") + line(drawn.means, "");
    std::string text = line(drawn.points, ""), dots;
    for (const CurvePoint& point : drawn.points)
        dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\"/>", plot.at_step(point.step),
                            plot.at_value(point.value));
    return text + fmt::format("<g class=\"dots c{}\">{}</g>\n", color, dots);
}

std::string mark_shapes(const Chart& chart, const Plot& plot) {
    std::string text;
    const double right = plot.left + plot.width;
    for (const double step : chart.resumed)
        if (step >= plot.x.low && step <= plot.x.high)
            text += fmt::format("<path class=\"resumed\" d=\"M{:.1f} {:.1f}v{:.1f}\"/>", plot.at_step(step), plot.top,
                                plot.height);
    for (const ChartLevel& level : chart.levels)
        text += fmt::format("<path class=\"level\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>", plot.left,
                            plot.at_value(level.value), right);
    for (const ChartMark& mark : chart.marks) {
        const double x = std::clamp(plot.at_step(mark.at.step), plot.left, right);
        const bool on_axis = !plot.y.logarithmic || mark.at.value > 0;
        const double y = std::clamp(on_axis ? plot.at_value(mark.at.value) : plot.top + plot.height, plot.top,
                                    plot.top + plot.height);
        text += mark.kind == ChartMark::best
                    ? fmt::format("<circle class=\"best\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"6\"/>", x, y)
                    : fmt::format("<path class=\"spike\" d=\"M{:.1f} {:.1f}l5 9h-10z\"/>", x, y - 4);
    }
    return text;
}

/// What report_script needs to find the value under the pointer.
Json hover_data(const Plot& plot) {
    Json lines = Json::array();
    const auto rounded = [](double value) { return std::stod(fmt::format("{:.6g}", value)); };
    for (const DrawnLine& drawn : plot.lines) {
        Json steps = Json::array(), values = Json::array();
        for (const CurvePoint& point : drawn.points) {
            steps.push_back(static_cast<int64_t>(point.step));
            values.push_back(rounded(point.value));
        }
        lines.push_back({{"name", drawn.line.name},
                         {"color", drawn.line.color % chart_colors},
                         {"steps", steps},
                         {"values", values}});
    }
    return {{"plot", {plot.left, plot.top, plot.width, plot.height}},
            {"x", {plot.x.low, plot.x.high}},
            {"y", {plot.y.low, plot.y.high}},
            {"logarithmic", plot.y.logarithmic},
            {"lines", lines}};
}

std::string picture(const Chart& chart, bool interactive, const std::string& style) {
    Plot plot = plot_of(chart);
    if (plot.lines.empty()) return "";
    const std::vector<Tick> values = ticks_of(plot.y, chart.height / 45), steps = ticks_of(plot.x, chart.width / 110);
    size_t longest = 3;
    for (const Tick& tick : values) longest = std::max(longest, tick.label.size());
    plot.left = letter * static_cast<double>(longest) + 16;
    plot.width = chart.width - plot.left - 16;
    double y = 42;
    const std::string entries = legend(chart, plot, y);
    plot.top = y + 14;
    plot.height = chart.height - 100;
    const double height = plot.top + plot.height + 42;
    std::string text = fmt::format(
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {:.0f}\" role=\"img\" "
        "aria-label=\"{}\">\n{}<text class=\"title\" x=\"{:.1f}\" y=\"20\">{}</text>\n",
        chart.width, height, escaped(chart.title), style, plot.left, escaped(chart.title));
    text += entries + axes(plot, values, steps);
    for (const DrawnLine& drawn : plot.lines) text += line_shapes(plot, drawn);
    text += mark_shapes(chart, plot) + "</svg>\n";
    if (interactive) text += script_json(hover_data(plot)) + "\n";
    return text;
}

}  // namespace

std::string svg_of(const Chart& chart, bool interactive) {
    return picture(chart, interactive, "");
}

std::string svg_file(const Chart& chart) {
    return picture(chart, false, "<style>" + chart_style() + ".chart{background:var(--paper)}</style>\n");
}

std::string chart_style() {
    std::string colors;
    for (int i = 0; i < chart_colors; ++i) colors += fmt::format(".c{0}{{--c:var(--c{0})}}", i);
    return R"(:root{--paper:#fff;--ink:#24292f;--faint:#6e7781;--grid:#e7eaee;--axis:#9aa4af;--warn:#cf222e;
--c0:#2563eb;--c1:#ea580c;--c2:#15803d;--c3:#9333ea;--c4:#0f766e;--c5:#be123c;--c6:#a16207;--c7:#475569}
@media(prefers-color-scheme:dark){:root{--paper:#0d1117;--ink:#e6edf3;--faint:#9198a1;--grid:#21262d;--axis:#6e7681;
--warn:#ff7b72;--c0:#6ea8fe;--c1:#fb923c;--c2:#4ade80;--c3:#c084fc;--c4:#2dd4bf;--c5:#fb7185;--c6:#facc15;--c7:#94a3b8}}
svg text{font:12px system-ui,sans-serif;fill:var(--faint)}svg .title{font-weight:600;font-size:13px;fill:var(--ink)}
svg .end{text-anchor:end}svg .middle{text-anchor:middle}
.grid{stroke:var(--grid);fill:none}.axis{stroke:var(--axis);fill:none}
.line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}
.pale{opacity:.3;stroke-width:1}.dots{fill:var(--c)}.level{stroke:var(--faint);stroke-dasharray:2 4;fill:none}
.resumed{stroke:var(--axis);stroke-dasharray:4 4;fill:none}.best{fill:none;stroke:var(--c2);stroke-width:2}
.spike{fill:var(--warn)}
)" + colors;
}

}  // namespace colonnade
