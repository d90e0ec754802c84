#include "train/log/curve_text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/device/terminal.h"

namespace colonnade {
namespace {

Series line(const std::string& name, double from, double to, int points) {
    Series series{name, {}, {}};
    for (int i = 0; i < points; ++i) {
        series.steps.push_back(i);
        series.values.push_back(from + (to - from) * i / (points - 1));
    }
    return series;
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
