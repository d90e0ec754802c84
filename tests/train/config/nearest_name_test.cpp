#include "train/config/nearest_name.h"

#include <gtest/gtest.h>

namespace colonnade {
namespace {

TEST(NearestName, CountsEdits) {
    const struct {
        std::string a, b;
        int distance;
    } cases[] = {{"", "", 0},        {"", "abc", 3},
                 {"abc", "abc", 0},  {"abc", "abd", 1},
                 {"abc", "ab", 1},   {"abcd", "acbd", 1},
                 {"ca", "abc", 3},   {"kitten", "sitting", 3},
                 {"seed", "sed", 1}, {"lr_schedular", "lr_scheduler", 1},
                 {"ab", "ba", 1}};
    for (const auto& c : cases) {
        EXPECT_EQ(edit_distance(c.a, c.b), c.distance) << c.a << " " << c.b;
        EXPECT_EQ(edit_distance(c.b, c.a), c.distance) << c.b << " " << c.a;
    }
    const std::vector<std::string> names = {"seed", "data_seed", "max_length"};
    EXPECT_EQ(nearest_name("sede", names), "seed");
    EXPECT_EQ(nearest_name("dataseed", names), "data_seed");
    EXPECT_EQ(nearest_name("unrelated", names), "");
}

}  // namespace
}  // namespace colonnade
