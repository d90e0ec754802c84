#include "train/log/curve_picture.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <numbers>

#include "engine/device/terminal.h"
#include "tests/support/file_test.h"
#include "train/log/canvas.h"

namespace colonnade {
namespace {

constexpr Color white{255, 255, 255}, black{0, 0, 0};

/// The amount of black ink on a white canvas, in whole pixels.
double ink_on(const Canvas& canvas) {
    double ink = 0;
    for (int y = 0; y < canvas.height(); ++y)
        for (int x = 0; x < canvas.width(); ++x) ink += (255 - canvas.at(x, y).red) / 255.0;
    return ink;
}

TEST(Canvas, InkIsTheAreaOfWhatIsDrawn) {
    Canvas disc(60, 60, white);
    disc.disc({30.3, 29.8}, 20, black);
    EXPECT_NEAR(ink_on(disc), std::numbers::pi * 400, 4);

    // A stroke with round ends covers length x thickness + one disc. A line back over itself adds nothing.
    Canvas stroke(100, 100, white);
    stroke.polyline({{20, 30}, {80, 70}, {20, 30}}, 6, black);
    EXPECT_NEAR(ink_on(stroke), std::hypot(60, 40) * 6 + std::numbers::pi * 9, 4);

    Canvas pale(100, 100, white);
    pale.polyline({{20, 30}, {80, 70}}, 6, black, 0.5);
    EXPECT_NEAR(ink_on(pale), ink_on(stroke) / 2, 4);
}

TEST(Canvas, WhatReachesBeyondIsCut) {
    Canvas canvas(10, 10, white);
    canvas.fill(-5, -5, 10, 10, black);
    EXPECT_EQ(ink_on(canvas), 25);
    canvas.polyline({{-100, 5}, {-50, 5}}, 3, black);
    canvas.text(8, 8, "W", black, 2);
    EXPECT_EQ(canvas.at(0, 9).red, 255);
}

TEST(Canvas, TextIsAsWideAsItSays) {
    const std::string text = "HUD";  // fills the whole height and width of its cells
    Canvas canvas(100, 50, white);
    canvas.text(10, 20, text, black, 3);
    int left = 100, right = -1, top = 50, bottom = -1;
    for (int y = 0; y < 50; ++y) {
        for (int x = 0; x < 100; ++x) {
            if (canvas.at(x, y).red == 255) continue;
            left = std::min(left, x), right = std::max(right, x), top = std::min(top, y), bottom = std::max(bottom, y);
        }
    }
    EXPECT_EQ(left, 10);
    EXPECT_EQ(right - left + 1, Canvas::text_width(text, 3));
    EXPECT_EQ(top, 20);
    EXPECT_EQ(bottom - top + 1, Canvas::text_height(3));
}

TEST(RoundTicks, AreRoundAndWithin) {
    const struct {
        double low, high;
        int count;
        std::vector<double> ticks;
    } cases[] = {
        {0, 10, 5, {0, 2, 4, 6, 8, 10}},
        {0.3, 9.7, 5, {2, 4, 6, 8}},
        {-1, 1, 4, {-1, -0.5, 0, 0.5, 1}},
        {0, 1200, 6, {0, 200, 400, 600, 800, 1000, 1200}},
        {2.31, 2.36, 5, {2.31, 2.32, 2.33, 2.34, 2.35, 2.36}},
        {1e-5, 3e-5, 2, {1e-5, 2e-5, 3e-5}},
    };
    for (const auto& c : cases) {
        const std::vector<double> ticks = round_ticks(c.low, c.high, c.count);
        ASSERT_EQ(ticks.size(), c.ticks.size()) << c.low << " to " << c.high;
        for (size_t i = 0; i < ticks.size(); ++i) EXPECT_NEAR(ticks[i], c.ticks[i], 1e-12);
    }
}

TEST(RoundTicks, AreBoundedWhereStepsVanish) {
    for (const double low : {0.6931471805599453, 1e16, 9.1e18}) {
        const double high = std::nextafter(low, 1e300);
        EXPECT_LE(round_ticks(low, high, 5).size(), 50u) << low;
    }
}

struct Picture {
    int width = 0, height = 0;
    std::vector<uint8_t> pixels;

    /// Mean row of the pixels of a colour in a column, or NaN.
    double row_of(Color color, int column) const {
        double sum = 0, count = 0;
        for (int y = 0; y < height; ++y) {
            const uint8_t* p = &pixels[static_cast<size_t>((y * width + column) * 3)];
            if (p[0] == color.red && p[1] == color.green && p[2] == color.blue) sum += y, ++count;
        }
        return sum / count;
    }
};

Picture read_png(const std::string& path) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    EXPECT_TRUE(png_image_begin_read_from_file(&image, path.c_str())) << image.message;
    image.format = PNG_FORMAT_RGB;
    Picture picture{static_cast<int>(image.width), static_cast<int>(image.height), {}};
    picture.pixels.resize(PNG_IMAGE_SIZE(image));
    EXPECT_TRUE(png_image_finish_read(&image, nullptr, picture.pixels.data(), 0, nullptr)) << image.message;
    return picture;
}

Series line(const std::string& name, double from, double to, int points) {
    Series series{name, {}, {}};
    for (int i = 0; i < points; ++i) {
        series.steps.push_back(i);
        series.values.push_back(from + (to - from) * i / (points - 1));
    }
    return series;
}

using DrawCurvesTest = FileTest;
constexpr Color first_ink{37, 99, 235}, second_ink{234, 88, 12};

TEST_F(DrawCurvesTest, DrawsEverySeriesAtItsHeight) {
    const std::string png = path("loss.png");
    // The second line falls from 8 to 0 and meets the first, level at 4, in the middle of the plot.
    draw_curves(png, {Series{"level", {0, 199}, {4, 4}}, line("falling", 8, 0, 200)},
                {.title = "two", .width = 800, .height = 500});
    const Picture picture = read_png(png);
    EXPECT_EQ(picture.width, 800);
    EXPECT_EQ(picture.height, 500);
    const double level = picture.row_of(first_ink, 200);
    EXPECT_NEAR(picture.row_of(first_ink, 600), level, 0.5);
    EXPECT_LT(picture.row_of(second_ink, 200), level - 20);
    EXPECT_GT(picture.row_of(second_ink, 600), level + 20);

    // Equal distances: the falling line is straight.
    const double a = picture.row_of(second_ink, 150), b = picture.row_of(second_ink, 250),
                 c = picture.row_of(second_ink, 350);
    EXPECT_NEAR(b - a, c - b, 1.5);
}

TEST_F(DrawCurvesTest, SkipsValuesThatAreNotFinite) {
    const std::string png = path("loss.png");
    Series with_nan = line("loss", 3, 1, 60), without = with_nan;
    with_nan.steps.push_back(60);
    with_nan.values.push_back(NAN);
    draw_curves(png, {with_nan});
    const Picture picture = read_png(png);
    draw_curves(png, {without});
    EXPECT_EQ(picture.pixels, read_png(png).pixels);
}

TEST_F(DrawCurvesTest, RefusesToDrawNothing) {
    const std::string png = path("loss.png");
    expect_error(Exit::data, png + ": there are no points to draw", [&] {
        draw_curves(png, {Series{"loss", {1}, {NAN}}});
    });
}

TEST(CurveText, PutsDotsWhereTheCurveIs) {
    // 3 columns x 2 rows have 6 x 8 dots; the line goes from the bottom left to the top right.
    const std::string text = curve_text({line("up", 0, 7, 6)}, {.columns = 6, .rows = 2});
    EXPECT_EQ(text,
              "    up\n"
              "  │⠀⢀⠎\n"
              "0 ┤⡠⠃⠀\n"
              "  └───\n"
              "   0step 5\n");
    EXPECT_EQ(curve_text({line("up", 0, 7, 6)}, {.columns = 6, .rows = 2, .utf8 = false}),
              "    up\n"
              "  | .:\n"
              "0 +.' \n"
              "  +---\n"
              "   0step 5\n");
}

TEST(CurveText, PutsPointsBesideTheCurve) {
    // The second point lies beyond the end of the curve, the third nowhere.
    const Series eval{"eval_loss", {0, 10, 12}, {7, 3.5, NAN}};
    EXPECT_EQ(curve_text({line("loss", 0, 7, 6), eval}, {.columns = 12, .rows = 2, .utf8 = false}),
              "    loss, o eval_loss\n"
              "  |o .:'    \n"
              "0 +.:'     o\n"
              "  +---------\n"
              "   0 step 10\n");
}

TEST(CurveText, HasTheSizeAskedFor) {
    for (const int points : {1, 2, 50, 5000}) {
        const std::string text =
            curve_text({line("loss", 3, points == 1 ? 3 : 2, std::max(points, 2))}, {.columns = 40, .rows = 8});
        EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 8 + 3) << points;
        size_t widest = 0;
        for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
            widest = std::max(widest, display_width(text.substr(begin, end - begin)));
        EXPECT_EQ(widest, 40u) << text;
    }
    EXPECT_EQ(curve_text({Series{"loss", {}, {}}, line("eval_loss", 1, 2, 3)}), "");
    EXPECT_EQ(curve_text({}), "");
}

}  // namespace
}  // namespace colonnade
