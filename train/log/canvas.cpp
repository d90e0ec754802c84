#include "train/log/canvas.h"

#include <png.h>

#include <algorithm>
#include <cmath>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "train/log/pixel_font.h"

namespace colonnade {
namespace {

double distance_to_segment(Point p, Point a, Point b) {
    const double dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
    const double along = length2 > 0 ? std::clamp(((p.x - a.x) * dx + (p.y - a.y) * dy) / length2, 0.0, 1.0) : 0;
    return std::hypot(p.x - a.x - along * dx, p.y - a.y - along * dy);
}

}  // namespace

Canvas::Canvas(int width, int height, Color background)
    : width_(width), height_(height), pixels_(static_cast<size_t>(width) * static_cast<size_t>(height) * 3) {
    fill(0, 0, width, height, background);
}

Color Canvas::at(int x, int y) const {
    const uint8_t* pixel =
        &pixels_[(static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)) * 3];
    return {pixel[0], pixel[1], pixel[2]};
}

void Canvas::blend(int x, int y, Color color, double share) {
    if (x < 0 || y < 0 || x >= width_ || y >= height_) return;
    uint8_t* pixel = &pixels_[(static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)) * 3];
    const std::array<uint8_t, 3> ink = {color.red, color.green, color.blue};
    for (size_t c = 0; c < 3; ++c)
        pixel[c] = static_cast<uint8_t>(std::lround(pixel[c] * (1 - share) + ink[c] * share));
}

void Canvas::fill(int x, int y, int width, int height, Color color) {
    for (int row = y; row < y + height; ++row)
        for (int column = x; column < x + width; ++column) blend(column, row, color, 1);
}

void Canvas::polyline(const std::vector<Point>& points, double thickness, Color color, double opacity) {
    // How much of each pixel the stroke covers, from the distance of its centre to the nearest segment.
    std::vector<float> coverage(static_cast<size_t>(width_) * static_cast<size_t>(height_), 0.0f);
    const double reach = thickness / 2 + 0.5;
    for (size_t i = 0; i < points.size(); ++i) {
        const Point a = points[i > 0 ? i - 1 : 0], b = points[i];
        const int left = std::max(0, static_cast<int>(std::min(a.x, b.x) - reach));
        const int right = std::min(width_ - 1, static_cast<int>(std::max(a.x, b.x) + reach));
        const int top = std::max(0, static_cast<int>(std::min(a.y, b.y) - reach));
        const int bottom = std::min(height_ - 1, static_cast<int>(std::max(a.y, b.y) + reach));
        for (int y = top; y <= bottom; ++y) {
            for (int x = left; x <= right; ++x) {
                const double distance = distance_to_segment({x + 0.5, y + 0.5}, a, b);
                float& covered =
                    coverage[static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)];
                covered = std::max(covered, static_cast<float>(std::clamp(reach - distance, 0.0, 1.0)));
            }
        }
    }
    for (int y = 0; y < height_; ++y) {
        for (int x = 0; x < width_; ++x) {
            const float covered =
                coverage[static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)];
            if (covered > 0) blend(x, y, color, covered * opacity);
        }
    }
}

void Canvas::disc(Point centre, double radius, Color color) {
    polyline({centre}, 2 * radius, color);
}

void Canvas::text(int x, int y, std::string_view text, Color color, int scale) {
    for (const char character : text) {
        const std::string_view rows = pixel_font::rows_of(character);
        for (int row = 0; row < pixel_font::height; ++row)
            for (int column = 0; column < pixel_font::width; ++column)
                if (pixel_font::pixel(rows, column, row))
                    fill(x + column * scale, y + row * scale, scale, scale, color);
        x += pixel_font::advance * scale;
    }
}

int Canvas::text_width(std::string_view text, int scale) {
    if (text.empty()) return 0;
    return (static_cast<int>(text.size()) * pixel_font::advance - (pixel_font::advance - pixel_font::width)) * scale;
}

int Canvas::text_height(int scale) {
    return pixel_font::cap_height * scale;
}

void Canvas::write_png(const std::string& path) const {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = static_cast<png_uint_32>(width_);
    image.height = static_cast<png_uint_32>(height_);
    image.format = PNG_FORMAT_RGB;
    std::string bytes(PNG_IMAGE_PNG_SIZE_MAX(image), '\0');
    png_alloc_size_t size = bytes.size();
    if (!png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels_.data(), 0, nullptr))
        fail(Exit::storage, "{}: the picture cannot be created: {}", path, image.message);
    write_file_atomically(path, std::string_view(bytes).substr(0, size));
}

}  // namespace colonnade
