// Files in pieces: every byte is written and hashed once; damage to any piece is named; bf16 is stored as f32.

#include "engine/io/file_pieces.h"

#include "engine/device/float16.h"
#include "engine/io/sha256.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

constexpr size_t mib = size_t{1} << 20;
constexpr uint64_t piece = 32 * mib;

std::vector<FilePiece> fill_file(const std::string& path, const std::vector<FileRegion>& regions, int threads) {
    FilledFile file(path, threads);
    for (const FileRegion& region : regions) file.fill(region);
    return file.finish();
}

class FilePieces : public FileTest {
  protected:
    /// A header of 100 bytes, 70 MiB of numbers, 7 bytes between them and 1000 bf16 numbers, and 9 bytes at the end.
    void SetUp() override {
        FileTest::SetUp();
        for (size_t i = 0; i < numbers_.size(); ++i) numbers_[i] = static_cast<float>(i % 1'000'003);
        for (size_t i = 0; i < narrow_.size(); ++i) narrow_[i] = bf16{bf16_from_float(0.1f * static_cast<float>(i))};
        header_ = std::string(100, 'h');
        spill(path("a"),
              header_ + std::string(numbers_.size() * 4, '\0') + "between" + std::string(4000, '\0') + "the end!!");
        second_ = 100 + numbers_.size() * 4 + 7;
    }
    std::vector<FileRegion> regions() const { return {{second_, view_of(narrow_)}, {100, view_of(numbers_)}}; }
    std::string expected() const {
        std::vector<float> wide;
        for (const bf16& x : narrow_) wide.push_back(float_from_bf16(x.bits));
        return header_ + std::string(reinterpret_cast<const char*>(numbers_.data()), numbers_.size() * 4) + "between" +
               std::string(reinterpret_cast<const char*>(wide.data()), wide.size() * 4) + "the end!!";
    }
    std::vector<float> numbers_ = std::vector<float>(70 * mib / 4);
    std::vector<bf16> narrow_ = std::vector<bf16>(1000);
    std::string header_;
    uint64_t second_ = 0;
};

TEST_F(FilePieces, HoldTheWholeFile) {
    const std::string whole = expected();
    for (const int threads : {1, 5}) {
        const std::vector<FilePiece> pieces = fill_file(path("a"), regions(), threads);
        ASSERT_TRUE(slurp(path("a")) == whole);
        uint64_t at = 0;
        for (const FilePiece& p : pieces) {
            EXPECT_TRUE(p.bytes > 0 && p.bytes <= piece);
            EXPECT_EQ(p.sha256, sha256(whole.substr(at, p.bytes))) << at;
            at += p.bytes;
        }
        EXPECT_EQ(at, whole.size());
        EXPECT_EQ(pieces.size(), 7u);  // header, three of the numbers, between, bf16, end
        check_pieces(path("a"), pieces, "advice");
        check_pieces(path("a"), hash_pieces(path("a"), threads), "advice");
    }
    EXPECT_EQ(hash_pieces(path("a"), 2).size(), 3u);
}

TEST_F(FilePieces, AreReadBackAnywhere) {
    fill_file(path("a"), regions(), 3);
    std::vector<float> back(numbers_.size()), some(10), wide(narrow_.size());
    read_regions(path("a"), {{100, view_of(back)}, {100 + 4 * 9 * mib, view_of(some)}, {second_, view_of(wide)}});
    EXPECT_TRUE(back == numbers_);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), numbers_.begin() + 9 * mib));
    EXPECT_EQ(wide[999], float_from_bf16(narrow_[999].bits));
    std::vector<float> beyond(numbers_.size());
    expect_error(Exit::data, path("a") + ": ends at byte ", [&] {
        read_regions(path("a"), {{200, view_of(back)}, {second_, view_of(beyond)}});
    });
}

TEST_F(FilePieces, DamageToAnyOfThemIsNamed) {
    const std::vector<FilePiece> pieces = fill_file(path("a"), regions(), 3);
    uint64_t begin = 0;
    for (const FilePiece& p : pieces) {
        for (const uint64_t at : {begin, begin + p.bytes - 1}) {
            std::fstream file(path("a"), std::ios::in | std::ios::out | std::ios::binary);
            const auto flip = [&] {
                file.seekg(static_cast<std::streamoff>(at));
                const int byte = file.get();
                file.seekp(static_cast<std::streamoff>(at));
                file.put(static_cast<char>(byte ^ 4)).flush();
            };
            flip();
            expect_error(Exit::data, fmt::format("{}: bytes {} to {} have SHA-256 ", path("a"), begin, begin + p.bytes),
                         [&] { check_pieces(path("a"), pieces, "advice"); });
            flip();
        }
        begin += p.bytes;
    }
    check_pieces(path("a"), pieces, "advice");
}

TEST_F(FilePieces, OfAnotherLengthAreRefused) {
    spill(path("b"), "12345");
    const std::vector<FilePiece> five = hash_pieces(path("b"), 1);
    for (const std::vector<FilePiece>& wrong :
         {std::vector<FilePiece>{}, {{4, five[0].sha256}}, {five[0], {1, ""}}, {{UINT64_MAX, ""}, five[0]}})
        expect_error(Exit::data, path("b") + ": 5 bytes, but its pieces have ",
                     [&] { check_pieces(path("b"), wrong, "advice"); });
    spill(path("empty"), "");
    check_pieces(path("empty"), hash_pieces(path("empty"), 4), "advice");
    expect_error(Exit::internal, "a: byte 104 is written twice", [&] {
        fill_file(path("a"), {{100, view_of(narrow_)}, {104, view_of(narrow_)}}, 2);
    });
    expect_error(Exit::storage, "none: cannot open", [&] { fill_file(path("none"), {}, 2); });
}

}  // namespace
}  // namespace colonnade
