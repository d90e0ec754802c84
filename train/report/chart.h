#pragma once
// Chart: curves over steps as an SVG picture with axes, grid and legend. A line of many values is drawn pale from its
// least to its greatest values, with its running mean over 1/50 of the run in full colour on top; of few values it has a
// marker for each. If the chart allows it, the axis of values is logarithmic when all are positive and differ by a factor
// of 50 or more.
//
// Colours are CSS variables (chart_style), light and dark.

#include <string>
#include <vector>

#include "train/report/curve.h"

namespace colonnade {

struct ChartLine {
    std::string name;
    const Curve* curve = nullptr;
    int color = 0;  ///< index of a colour; there are chart_colors, then they come again
};
constexpr int chart_colors = 8;

/// A level for comparison.
struct ChartLevel {
    std::string name;
    double value = 0;
};

struct ChartMark {
    enum Kind { best, spike } kind = best;
    CurvePoint at{};
};

struct Chart {
    std::string title;
    std::vector<ChartLine> lines;
    std::vector<ChartLevel> levels{};
    std::vector<ChartMark> marks{};
    std::vector<double> resumed{};  ///< steps at which the run was resumed
    int width = 640, height = 300;  ///< pixels of the plot and its labels; a legend of several lines comes on top
    size_t spans = 300;             ///< parts of a line that are drawn
    bool may_be_logarithmic = true;
};

/// <svg class="chart">, and behind it the values as JSON for report_script; only the picture if not `interactive`.
/// Empty if no line has a value.
std::string svg_of(const Chart& chart, bool interactive = true);

/// A picture of its own: a file with its style.
std::string svg_file(const Chart& chart);

/// CSS of charts and other pictures.
std::string chart_style();

}  // namespace colonnade
