#include "train/log/tensorboard.h"

#include <google/protobuf/io/coded_stream.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <map>

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

using google::protobuf::io::CodedInputStream;

using TensorboardTest = FileTest;

// RFC 3720, appendix B.4, and the check value of CRC-32C's entry in the catalogue of CRC algorithms.
TEST(Crc32c, OfTheStandardVectors) {
    std::string rising, falling;
    for (int i = 0; i < 32; ++i) rising += static_cast<char>(i), falling += static_cast<char>(31 - i);
    EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
    EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
    EXPECT_EQ(crc32c(rising), 0x46dd794eu);
    EXPECT_EQ(crc32c(falling), 0x113fdb5cu);
    EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
}

// The fields of one message by number: numbers as bits, the others as bytes. Does not use the .proto file.
std::multimap<int, std::string> fields(const std::string& message) {
    CodedInputStream in(reinterpret_cast<const uint8_t*>(message.data()), static_cast<int>(message.size()));
    std::multimap<int, std::string> found;
    while (const uint32_t tag = in.ReadTag()) {
        uint64_t bits = 0;
        uint32_t small = 0;
        std::string bytes;
        bool read = false;
        if ((tag & 7) == 0) read = in.ReadVarint64(&bits), bytes = std::to_string(bits);
        if ((tag & 7) == 1) read = in.ReadLittleEndian64(&bits), bytes = std::to_string(std::bit_cast<double>(bits));
        if ((tag & 7) == 2) read = in.ReadVarint32(&small) && in.ReadString(&bytes, static_cast<int>(small));
        if ((tag & 7) == 5)
            read = in.ReadLittleEndian32(&small), bytes = fmt::format("{}", std::bit_cast<float>(small));
        if (!read) ADD_FAILURE() << "unreadable field, tag " << tag;
        found.emplace(static_cast<int>(tag >> 3), bytes);
    }
    return found;
}

std::string only(const std::multimap<int, std::string>& found, int number) {
    EXPECT_EQ(found.count(number), 1u) << "field " << number;
    const auto field = found.find(number);
    return field == found.end() ? "" : field->second;
}

template <typename T>
T little_endian(const std::string& bytes, size_t at) {
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<uint8_t>(bytes.at(at + i))) << (8 * i);
    return value;
}

uint32_t unmasked(uint32_t masked) {
    return std::rotl(masked - 0xa282ead8u, 15);
}

// The messages of a file, after checking lengths and both checksums of every record.
std::vector<std::string> records(const std::string& path) {
    const std::string file = slurp(path);
    std::vector<std::string> messages;
    for (size_t at = 0; at < file.size();) {
        const auto length = little_endian<uint64_t>(file, at);
        EXPECT_EQ(unmasked(little_endian<uint32_t>(file, at + 8)), crc32c(file.substr(at, 8)));
        messages.push_back(file.substr(at + 12, length));
        EXPECT_EQ(unmasked(little_endian<uint32_t>(file, at + 12 + length)), crc32c(messages.back()));
        at += 12 + length + 4;
    }
    return messages;
}

TEST_F(TensorboardTest, WritesScalarsUnderTensorflowsFieldNumbers) {
    EventWriter writer(path("runs"));
    writer.write(7, {{"train/loss", 2.5}, {"train/zero", 0.0}});
    const auto messages = records(writer.path());  // while the writer is still open
    ASSERT_EQ(messages.size(), 2u);

    const auto version = fields(messages[0]);
    EXPECT_GT(std::stod(only(version, 1)), 1.7e9);
    EXPECT_EQ(only(version, 3), "brain.Event:2");

    const auto event = fields(messages[1]);
    EXPECT_EQ(only(event, 2), "7");
    const auto values = fields(only(event, 5));
    ASSERT_EQ(values.count(1), 2u);
    auto value = values.find(1);
    EXPECT_EQ(fields(value->second), (std::multimap<int, std::string>{{1, "train/loss"}, {2, "2.5"}}));
    ++value;
    EXPECT_EQ(fields(value->second), (std::multimap<int, std::string>{{1, "train/zero"}, {2, "0"}}));
}

TEST_F(TensorboardTest, KeepsValuesThatAreNotFinite) {
    EventWriter writer(path("runs"));
    writer.write(1, {{"a", NAN}, {"b", INFINITY}});
    const auto values = fields(only(fields(records(writer.path()).at(1)), 5));
    auto value = values.find(1);
    EXPECT_EQ(only(fields(value->second), 2), "nan");
    EXPECT_EQ(only(fields((++value)->second), 2), "inf");
}

TEST_F(TensorboardTest, AResumedRunStartsANewFileAndForgetsLaterSteps) {
    const EventWriter first(path("runs")), second(path("runs"), 40);
    EXPECT_NE(first.path(), second.path());
    const auto messages = records(second.path());
    ASSERT_EQ(messages.size(), 2u);
    const auto start = fields(messages[1]);
    EXPECT_EQ(only(start, 2), "41");
    EXPECT_EQ(only(fields(only(start, 7)), 1), "1");  // SessionLog.status = START
}

TEST_F(TensorboardTest, AFolderThatCannotBeMadeIsAStorageError) {
    spill(path("file"), "x");
    expect_error(Exit::storage, path("file/runs") + ": cannot create the folder",
                 [&] { EventWriter writer(path("file/runs")); });
}

}  // namespace
}  // namespace colonnade
