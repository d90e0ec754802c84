#include "train/report/curve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace colonnade {
namespace {

struct Values {
    std::vector<CurvePoint> all;
    Curve curve;
};

/// A walk with spikes of one step.
Values random_walk(int64_t count, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    Values values;
    double level = 3;
    for (int64_t i = 0; i < count; ++i) {
        level += 0.01 * normal(random);
        const double spike = random() % 500 == 0 ? 10 * normal(random) : 0;
        values.all.push_back({static_cast<double>(3 * i + 1), level + 0.1 * normal(random) + spike});
        values.curve.add(values.all.back().step, values.all.back().value);
    }
    return values;
}

TEST(Curve, OutlineKeepsExtremesAndOrder) {
    for (const int64_t count : {1, 2, 99, 100, 101, 2048, 2049, 5000, 60000})
        for (const size_t spans : {size_t{1}, size_t{20}, size_t{100}, size_t{1000}}) {
            SCOPED_TRACE(testing::Message() << count << " values in " << spans << " parts");
            const auto [all, curve] = random_walk(count, static_cast<uint64_t>(count) + spans);
            const std::vector<CurvePoint> points = curve.outline(spans);
            const auto by_value = [](const CurvePoint& a, const CurvePoint& b) { return a.value < b.value; };
            EXPECT_EQ(*std::ranges::min_element(points, by_value), *std::ranges::min_element(all, by_value));
            EXPECT_EQ(*std::ranges::max_element(points, by_value), *std::ranges::max_element(all, by_value));
            EXPECT_EQ(points.front(), all.front());
            EXPECT_EQ(points.back(), all.back());
            EXPECT_LE(points.size(), 2 * spans + 2);
            for (size_t i = 1; i < points.size(); ++i) ASSERT_LT(points[i - 1].step, points[i].step);
            for (const CurvePoint& point : points)
                ASSERT_EQ(point, all[static_cast<size_t>((point.step - 1) / 3)]);  // no point is made up
            if (static_cast<size_t>(count) <= spans) {
                EXPECT_EQ(points, all);
            }
        }
}

/// In a picture a spike is at its place, wherever it is.
TEST(Curve, EverySpikeIsInTheOutline) {
    for (int64_t at = 0; at < 30000; at += 977) {
        Curve curve;
        for (int64_t i = 0; i < 30000; ++i) curve.add(static_cast<double>(i), i == at ? 50 : 1 + 1e-4 * (i % 7));
        EXPECT_EQ(std::ranges::count(curve.outline(100), CurvePoint{static_cast<double>(at), 50}), 1) << at;
    }
}

TEST(Curve, MeansHaveTheMeanOfAll) {
    for (const int64_t count : {1, 7, 4000, 50000}) {
        const auto [all, curve] = random_walk(count, static_cast<uint64_t>(count));
        double sum = 0;
        for (const CurvePoint& point : all) sum += point.value;
        const std::vector<CurvePoint> one = curve.means(1);
        ASSERT_EQ(one.size(), 1u);
        EXPECT_NEAR(one[0].value, sum / static_cast<double>(count), 1e-9);
        EXPECT_NEAR(one[0].step, (all.front().step + all.back().step) / 2, 1e-6 * all.back().step);
        EXPECT_LE(curve.means(64).size(), 64u);
    }
}

TEST(Curve, CountsWhatIsNotFinite) {
    Curve curve;
    for (const double value : std::vector<double>{NAN, 2, INFINITY, 1, -INFINITY})
        curve.add(static_cast<double>(curve.size()), value);
    EXPECT_EQ(curve.size(), 2);
    EXPECT_EQ(curve.not_finite(), 3);
    EXPECT_EQ(curve.least().value, 1);
    EXPECT_EQ(curve.greatest().value, 2);
    EXPECT_TRUE(Curve().outline(10).empty());
    EXPECT_TRUE(Curve().means(10).empty());
}

}  // namespace
}  // namespace colonnade
