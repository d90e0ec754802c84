#pragma once
// Pictures of pixels as PNG files.

#include <cstdint>
#include <string>
#include <vector>

namespace colonnade {

struct Colour {
    uint8_t red = 255, green = 255, blue = 255;
    bool operator==(const Colour&) const = default;
};

/// Pixels row by row, from the top.
struct PixelPicture {
    PixelPicture(int64_t columns, int64_t lines, Colour background = {})
        : width(columns), height(lines), pixels(static_cast<size_t>(columns * lines), background) {}

    Colour& at(int64_t x, int64_t y) { return pixels[static_cast<size_t>(y * width + x)]; }
    const Colour& at(int64_t x, int64_t y) const { return pixels[static_cast<size_t>(y * width + x)]; }

    int64_t width, height;
    std::vector<Colour> pixels;
};

/// The bytes of a PNG file. Throws Exit::internal with libpng's words for a picture that it refuses.
std::string png_of(const PixelPicture& picture);

}  // namespace colonnade
