#include "train/report/pictures.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "tests/support/markup.h"

namespace colonnade {
namespace {

/// The tiles that a class's path covers, [rows, columns], each with how often.
std::vector<int> covered(const std::string& svg, const std::string& name, size_t side) {
    std::vector<int> tiles(side * side);
    const double cell = 320.0 / static_cast<double>(side);
    size_t at = svg.find("class=\"" + name + "\" d=\"") + name.size() + 12;
    const size_t end = svg.find('"', at);
    for (at = svg.find('M', at); at < end; at = svg.find('M', at + 1)) {
        double x = 0, y = 0, width = 0;
        if (std::sscanf(svg.c_str() + at, "M%lf %lfh%lf", &x, &y, &width) != 3) ADD_FAILURE() << svg.substr(at, 40);
        const auto row = static_cast<size_t>(std::lround((y - 22) / cell));
        const auto begin = static_cast<size_t>(std::lround((x - 60) / cell));
        const auto count = static_cast<size_t>(std::lround(width / cell));
        for (size_t column = begin; column < begin + count; ++column) ++tiles.at(row * side + column);
    }
    return tiles;
}

TEST(TilePicture, CoversEveryTileOnce) {
    std::mt19937_64 random(3);
    for (const size_t side : {size_t{1}, size_t{7}, size_t{64}}) {
        TilePicture picture{.tokens = 100, .tile = 2};
        for (size_t row = 0; row < side; ++row) {
            picture.classes.emplace_back();
            for (size_t column = 0; column < side; ++column) picture.classes.back() += "#/."[random() % 3];
        }
        const std::string svg = svg_of(picture);
        EXPECT_EQ(markup_trouble(svg), "");
        EXPECT_LT(svg.size(), 250000u);
        const std::vector<int> full = covered(svg, "full", side), partial = covered(svg, "partial", side);
        for (size_t i = 0; i < side * side; ++i) {
            const char of = picture.classes[i / side][i % side];
            ASSERT_EQ(full[i], of == '#') << i;
            ASSERT_EQ(partial[i], of == '/') << i;
        }
    }
    EXPECT_EQ(svg_of(TilePicture{}), "");
}

TEST(Histogram, CountsEveryLengthOnce) {
    std::mt19937_64 random(5);
    for (const int64_t range : {1, 2, 39, 40, 41, 5000}) {
        std::vector<int64_t> lengths(1000);
        for (int64_t& length : lengths) length = 10 + static_cast<int64_t>(random() % static_cast<uint64_t>(range));
        const std::vector<Bin> bins = histogram(lengths);
        EXPECT_LE(bins.size(), 40u);
        for (size_t i = 0; i < bins.size(); ++i) {
            EXPECT_EQ(bins[i].end - bins[i].begin, bins[0].end - bins[0].begin);
            if (i > 0) {
                EXPECT_EQ(bins[i].begin, bins[i - 1].end);
            }
            EXPECT_EQ(bins[i].count, std::ranges::count_if(lengths, [&](int64_t length) {
                          return length >= bins[i].begin && length < bins[i].end;
                      }));
        }
        EXPECT_EQ(std::accumulate(bins.begin(), bins.end(), int64_t{0},
                                  [](int64_t sum, const Bin& bin) { return sum + bin.count; }),
                  1000);
        const std::string svg = svg_of(bins, "tokens of <a> sample");
        EXPECT_EQ(markup_trouble(svg), "");
        EXPECT_EQ(occurrences(svg, "<rect"), std::ranges::count_if(bins, [](const Bin& bin) { return bin.count > 0; }));
    }
    EXPECT_TRUE(histogram({}).empty());
    EXPECT_EQ(svg_of(std::vector<Bin>(), "none"), "");
}

}  // namespace
}  // namespace colonnade
