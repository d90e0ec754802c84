#include "train/report/chart.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "engine/io/json.h"
#include "tests/support/markup.h"

namespace colonnade {
namespace {

Curve line(double from, double to, int points) {
    Curve curve;
    for (int i = 0; i < points; ++i) curve.add(i, from + (to - from) * i / (points - 1));
    return curve;
}

/// The points of the n-th polyline.
std::vector<CurvePoint> polyline(const std::string& svg, int n) {
    size_t at = 0;
    for (int i = 0; i <= n; ++i) at = svg.find("points=\"", at) + 8;
    std::istringstream text(svg.substr(at, svg.find('"', at) - at));
    std::vector<CurvePoint> points;
    char comma = 0;
    for (CurvePoint point; text >> point.step >> comma >> point.value;) points.push_back(point);
    return points;
}

TEST(Chart, DrawsEveryLineAtItsHeight) {
    const Curve level = line(4, 4, 2), falling = line(8, 0, 30);
    const std::string svg = svg_of({.title = "two", .lines = {{"level", &level}, {"falling", &falling, 1}}}, false);
    EXPECT_EQ(markup_trouble(svg), "");
    const std::vector<CurvePoint> flat = polyline(svg, 0), fall = polyline(svg, 1);
    ASSERT_EQ(fall.size(), 30u);
    EXPECT_EQ(flat[0].value, flat[1].value);
    // It falls from above to below the level, as far on both sides, in a straight line.
    EXPECT_NEAR(flat[0].value - fall.front().value, fall.back().value - flat[0].value, 0.3);
    EXPECT_GT(flat[0].value - fall.front().value, 50);
    for (size_t i = 1; i < fall.size(); ++i)
        EXPECT_NEAR(fall[i].value - fall[i - 1].value, (fall.back().value - fall.front().value) / 29, 0.2);
    EXPECT_EQ(occurrences(svg, "<circle cx="), 32);  // markers of few values
}

TEST(Chart, ManyValuesHaveAMeanOnTop) {
    Curve curve;
    for (int i = 0; i < 5000; ++i) curve.add(i, 2 + (i % 2));
    const std::string svg = svg_of({.title = "noise", .lines = {{"loss", &curve}}, .spans = 100}, false);
    EXPECT_EQ(occurrences(svg, "<polyline"), 2);
    const std::vector<CurvePoint> outline = polyline(svg, 0), mean = polyline(svg, 1);
    EXPECT_LE(outline.size(), 202u);
    const auto [low, high] = std::ranges::minmax(outline, {}, &CurvePoint::value);
    for (const CurvePoint& point : mean) EXPECT_NEAR(point.value, (low.value + high.value) / 2, 3);
}

TEST(Chart, IsLogarithmicIfValuesDifferByAFactor) {
    const Curve curve = [] {
        Curve powers;
        for (int i = 0; i < 6; ++i) powers.add(i, std::pow(10, -i));
        return powers;
    }();
    const std::string svg = svg_of({.title = "powers", .lines = {{"x", &curve}}}, false);
    const std::vector<CurvePoint> points = polyline(svg, 0);
    for (size_t i = 2; i < points.size(); ++i)
        EXPECT_NEAR(points[i].value - points[i - 1].value, points[1].value - points[0].value, 0.2);
    for (const char* label : {">1<", ">0.1<", ">0.01<", ">0.001<", ">0.0001<", ">1e-05<"})
        EXPECT_NE(svg.find(label), std::string::npos) << label;
    const std::string linear =
        svg_of({.title = "powers", .lines = {{"x", &curve}}, .may_be_logarithmic = false}, false);
    EXPECT_GT(polyline(linear, 0)[1].value - polyline(linear, 0)[0].value, 3 * (points[1].value - points[0].value));
}

TEST(Chart, ShowsMarksLevelsAndResumes) {
    const Curve curve = line(3, 1, 10);
    Chart chart{.title = "loss", .lines = {{"loss", &curve}}};
    chart.levels = {{"unigram <model>", 5}};
    chart.marks = {{ChartMark::best, {9, 1}}, {ChartMark::spike, {4, 90}}};
    chart.resumed = {5, 700};
    const std::string svg = svg_of(chart, false);
    EXPECT_EQ(markup_trouble(svg), "");
    EXPECT_EQ(occurrences(svg, "class=\"best\""), 2);     // it and its entry in the legend
    EXPECT_EQ(occurrences(svg, "class=\"spike\""), 2);    // beyond the top: at the top
    EXPECT_EQ(occurrences(svg, "class=\"resumed\""), 2);  // 700 is beyond the picture
    EXPECT_EQ(occurrences(svg, "unigram &lt;model&gt;"), 1);
    const std::string best = svg.substr(svg.rfind("class=\"best\""));
    const double x = std::stod(best.substr(best.find("cx=\"") + 4)), y = std::stod(best.substr(best.find("cy=\"") + 4));
    EXPECT_NEAR(x, polyline(svg, 0).back().step, 0.11);
    EXPECT_NEAR(y, polyline(svg, 0).back().value, 0.11);
}

TEST(Chart, GivesTheScriptItsValues) {
    const Curve curve = line(2.5, 0.5, 5);
    const std::string svg = svg_of({.title = "loss", .lines = {{"loss", &curve, 9}}});
    EXPECT_EQ(markup_trouble(svg), "");
    const size_t begin = svg.find("<script type=\"application/json\">") + 32;
    const Json data = parse_json(svg.substr(begin, svg.find("</script>") - begin), "data of the script");
    EXPECT_EQ(data.at("lines")[0].at("values"), Json({2.5, 2, 1.5, 1, 0.5}));
    EXPECT_EQ(data.at("lines")[0].at("steps"), Json({0, 1, 2, 3, 4}));
    EXPECT_EQ(data.at("lines")[0].at("color"), 1);
}

TEST(Chart, OfNothingIsNothing) {
    const Curve none, one = line(1, 1, 1 + 1);
    EXPECT_EQ(svg_of({.title = "none", .lines = {{"loss", &none}}}), "");
    Curve single;
    single.add(1, 0);
    for (const Curve* curve : std::vector<const Curve*>{&single, &one}) {
        const std::string svg = svg_of({.title = "one", .lines = {{"loss", curve}}}, false);
        EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
        EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
    }
}

TEST(Chart, AFileHasItsStyle) {
    const Curve curve = line(3, 1, 10);
    const std::string svg = svg_file({.title = "loss of <a & b>", .lines = {{"loss", &curve}}});
    EXPECT_EQ(markup_trouble(svg), "");
    EXPECT_TRUE(svg.starts_with("<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\""));
    EXPECT_EQ(occurrences(svg, "prefers-color-scheme:dark"), 1);
    EXPECT_EQ(occurrences(svg, "<script"), 0);
}

}  // namespace
}  // namespace colonnade
