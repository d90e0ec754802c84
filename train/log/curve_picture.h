#pragma once
// Loss curves for the eye: as a PNG with axes, grid and legend, and as a few lines of braille dots for the terminal.

#include <string>
#include <vector>

namespace colonnade {

/// One named curve. Points with a value that is not finite are left out.
struct Series {
    std::string name;
    std::vector<double> steps;   ///< ascending
    std::vector<double> values;  ///< as many
};

struct CurvePicture {
    std::string title = {};
    int width = 1200, height = 700;  ///< pixels, at least 400 x 300
};
/// A series of many points is drawn pale, with its running mean over 1/50 of its points in full colour on top; one of
/// few points gets markers, one of two (a level to compare with) does not. Throws Exit::data where there is no point at
/// all, Exit::storage where `path` cannot be written.
void draw_curves(const std::string& path, const std::vector<Series>& series, const CurvePicture& picture = {});

/// The curve in `columns` x `rows` characters, labels apart; every line ends in a line break. Empty without points.
std::string curve_text(const Series& series, int columns = 64, int rows = 12);

/// Multiples of 1, 2 or 5 times a power of ten within [low, high], about `count` of them.
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace colonnade
