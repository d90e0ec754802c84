// W&B's offline file: its blocks, checksums and records. tests/golden/check_logs.py reads it with the real package.

#include "train/log/wandb_log.h"

#include <filesystem>

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

/// CRC-32 of IEEE 802.3, bit by bit.
uint32_t crc_of(std::string_view bytes) {
    uint32_t crc = ~0u;
    for (const char byte : bytes) {
        crc ^= static_cast<uint8_t>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

uint32_t number(const std::string& file, size_t at, size_t bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= static_cast<uint32_t>(static_cast<uint8_t>(file.at(at + i))) << (8 * i);
    return value;
}

/// The records of a file, joined from their pieces after every checksum and type is checked.
std::vector<std::string> records(const std::string& path) {
    const std::string file = slurp(path);
    EXPECT_EQ(file.substr(0, 4), ":W&B");
    EXPECT_EQ(number(file, 4, 2), 0xbee1u);
    std::vector<std::string> all;
    bool open = false;
    for (size_t at = 7; at < file.size();) {
        if (32768 - at % 32768 < 7) {
            at += 32768 - at % 32768;
            continue;
        }
        const size_t length = number(file, at + 4, 2);
        const std::string typed = file.substr(at + 6, length + 1);
        EXPECT_EQ(number(file, at, 4), crc_of(typed));
        EXPECT_LE(at % 32768 + 7 + length, 32768u);
        const int type = typed[0];
        EXPECT_EQ(open, type == 3 || type == 4);
        if (!open) all.emplace_back();
        all.back() += typed.substr(1);
        open = type == 2 || type == 3;
        at += 7 + length;
    }
    EXPECT_FALSE(open);
    return all;
}

using WandbLogTest = FileTest;

TEST_F(WandbLogTest, HasRunHistoryAndEnd) {
    std::string file;
    {
        WandbLog log(folder_, {.project = "p", .name = "n", .config = {{"seed", "3"}}, .texts = {}}, {});
        for (int step = 0; step < 2000; ++step) log.write(step, {{"train/loss", 1.0 / (step + 1)}});
        file = log.path();
    }
    const std::vector<std::string> all = records(file);
    ASSERT_EQ(all.size(), 2 + 2 * 2000 + 1u);
    EXPECT_NE(all[1].find("seed"), std::string::npos);
    EXPECT_NE(all[2].find("train/loss"), std::string::npos);
    const std::filesystem::path path = file;
    EXPECT_EQ(path.parent_path().filename().string().substr(0, 12), "offline-run-");
}

TEST_F(WandbLogTest, CutsLongRecords) {
    const std::string text(100'000, 'x');
    std::string file;
    {
        WandbLog log(folder_, {.project = "p", .name = "n", .config = {{"text", text}}, .texts = {}}, {});
        file = log.path();
    }
    const std::vector<std::string> all = records(file);
    ASSERT_EQ(all.size(), 3u);
    EXPECT_NE(all[1].find(text), std::string::npos);
}

TEST_F(WandbLogTest, AResumedRunKeepsItsId) {
    const RunDescription run{.project = "p", .name = "n", .config = {}, .texts = {}};
    const auto id = [&](std::optional<int64_t> step) {
        return std::filesystem::path(WandbLog(folder_, run, step).path()).stem().string();
    };
    const std::string first = id({});
    EXPECT_EQ(id(7), first);
    EXPECT_NE(id({}), first);
}

}  // namespace
}  // namespace colonnade
