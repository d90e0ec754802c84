#pragma once
// Canvas: a small picture to draw on: rectangles, text, anti-aliased lines and discs, written as PNG. Coordinates count
// pixels from the top left corner; the centre of the first pixel is at (0.5, 0.5).

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

struct Color {
    uint8_t red = 0, green = 0, blue = 0;
};

struct Point {
    double x = 0, y = 0;
};

class Canvas {
  public:
    Canvas(int width, int height, Color background);
    int width() const { return width_; }
    int height() const { return height_; }
    Color at(int x, int y) const;

    void fill(int x, int y, int width, int height, Color color);
    /// Draws lines through `points`, round at joints and ends. Overlapping strokes of one call do not add up.
    void polyline(const std::vector<Point>& points, double thickness, Color color, double opacity = 1);
    void disc(Point centre, double radius, Color color);
    /// Draws text in the pixel font (train/log/pixel_font.h) with pixels of scale x scale; (x, y) is the top left
    /// corner of the first capital.
    void text(int x, int y, std::string_view text, Color color, int scale);
    static int text_width(std::string_view text, int scale);
    static int text_height(int scale);

    /// Throws Exit::storage.
    void write_png(const std::string& path) const;

  private:
    void blend(int x, int y, Color color, double share);

    int width_, height_;
    std::vector<uint8_t> pixels_;  // [height, width, 3]
};

}  // namespace colonnade
