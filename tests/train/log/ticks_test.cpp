#include "train/log/ticks.h"

#include <gtest/gtest.h>

#include <cmath>

namespace colonnade {
namespace {

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

TEST(TickLabels, HaveTheDecimalsOfTheirDistance) {
    EXPECT_EQ(tick_labels({0, 0.5, 1}), (std::vector<std::string>{"0.0", "0.5", "1.0"}));
    EXPECT_EQ(tick_labels({0, 200}), (std::vector<std::string>{"0", "200"}));
    EXPECT_EQ(tick_labels({1e-5, 2e-5}), (std::vector<std::string>{"0.00001", "0.00002"}));
}

}  // namespace
}  // namespace colonnade
