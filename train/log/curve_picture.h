#pragma once
// Loss curves as pictures: a PNG with axes, grid and legend, and a few lines of text for the terminal.

#include <string>
#include <vector>

namespace colonnade {

/// One named curve. Points whose value is not finite are not drawn.
struct Series {
    std::string name;
    std::vector<double> steps;   ///< ascending
    std::vector<double> values;  ///< one per step
};

struct CurvePicture {
    std::string title = {};
    int width = 1200, height = 700;  ///< pixels, at least 400 x 300
};
/// A series of many points is drawn pale, with its running mean over 1/50 of the points in full colour on top. A series
/// of few points gets markers, unless it has two points: that is a level for comparison. Throws Exit::data if no series
/// has a point, Exit::storage if `path` cannot be written.
void draw_curves(const std::string& path, const std::vector<Series>& series, const CurvePicture& picture = {});

struct CurveText {
    int columns = 72;  ///< of a line with its label
    int rows = 12;     ///< of the plot
    bool utf8 = true;  ///< braille dots; else ASCII
};
/// The first series as a curve, the others as points (o). Every line ends in a line break. Empty if the first series has
/// no points.
std::string curve_text(const std::vector<Series>& series, const CurveText& size = {});

/// About `count` multiples of 1, 2 or 5 times a power of ten within [low, high].
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace colonnade
