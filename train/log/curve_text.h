#pragma once
// Loss curves as a few lines of text, for the terminal. train/report draws them.

#include <string>
#include <vector>

namespace colonnade {

/// One named curve. Points whose value is not finite are not drawn.
struct Series {
    std::string name;
    std::vector<double> steps;   ///< ascending
    std::vector<double> values;  ///< one per step
};

struct CurveText {
    int columns = 72;  ///< of a line with its label
    int rows = 12;     ///< of the plot
    bool utf8 = true;  ///< braille dots; else ASCII
};
/// The first series as a curve, the others as points (o). Every line ends in a line break. Empty if the first series has
/// no points.
std::string curve_text(const std::vector<Series>& series, const CurveText& size = {});

}  // namespace colonnade
