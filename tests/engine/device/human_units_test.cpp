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

TEST(HumanUnits, ReadBytes) {
    const std::pair<const char*, size_t> cases[] = {{"24GiB", size_t{24} << 30},
                                                    {"1.5 TiB", size_t{3} << 39},
                                                    {"48GB", 48'000'000'000},
                                                    {"512MiB", size_t{512} << 20},
                                                    {"0.5KiB", 512},
                                                    {"7kB", 7000},
                                                    {"7KB", 7000},
                                                    {"4097B", 4097},
                                                    {"0B", 0},
                                                    {"1e3 MB", 1'000'000'000}};
    for (const auto& [text, bytes] : cases) {
        EXPECT_EQ(parse_bytes(text), bytes) << text;
        EXPECT_EQ(parse_bytes(exact_bytes(bytes)), bytes) << text;
    }
    for (const char* text :
         {"", "24", "GiB", "24G", "24 gib", "-1GiB", "24GiB ", "nanGiB", "infB", "1e30TiB", "2 4GiB"})
        EXPECT_FALSE(parse_bytes(text)) << text;
    EXPECT_EQ(exact_bytes(size_t{24} << 30), "24GiB");
    EXPECT_EQ(exact_bytes(48'000'000'000), "48GB");
    EXPECT_EQ(exact_bytes(4097), "4097B");
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
