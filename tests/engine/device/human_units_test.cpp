#include "engine/device/human_units.h"

#include <gtest/gtest.h>

namespace colonnade {
namespace {

TEST(HumanUnits, Bytes) {
    EXPECT_EQ(human_bytes(640), "640 B");
    EXPECT_EQ(human_bytes(1536), "1.50 KiB");
    EXPECT_EQ(human_bytes(size_t{12} << 20), "12.0 MiB");
    EXPECT_EQ(human_bytes(size_t{3} << 40), "3.00 TiB");
}

TEST(HumanUnits, Durations) {
    const std::pair<double, const char*> cases[] = {{0, "0 ms"},        {0.35, "350 ms"},  {0.9994, "999 ms"},
                                                    {0.9996, "1.0 s"},  {12.34, "12.3 s"}, {59.94, "59.9 s"},
                                                    {59.96, "1m 00s"},  {245, "4m 05s"},   {3599.4, "59m 59s"},
                                                    {3599.6, "1h 00m"}, {7380, "2h 03m"},  {273600, "3d 04h"}};
    for (const auto& [seconds, expected] : cases) EXPECT_EQ(human_duration(seconds), expected);
}

TEST(HumanUnits, Counts) {
    const std::pair<double, const char*> cases[] = {
        {0, "0"},         {999, "999"},      {999.6, "1.00k"},  {1234, "1.23k"},  {9996, "10.0k"}, {12345, "12.3k"},
        {999400, "999k"}, {999600, "1.00M"}, {4.56e6, "4.56M"}, {1.2e9, "1.20G"}, {3e15, "3000T"}};
    for (const auto& [count, expected] : cases) EXPECT_EQ(human_count(count), expected);
}

}  // namespace
}  // namespace colonnade
