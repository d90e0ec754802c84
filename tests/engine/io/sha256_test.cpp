#include "engine/io/sha256.h"

#include <gtest/gtest.h>

namespace colonnade {
namespace {

TEST(Sha256AsBf16, HashesHashesOfPieces) {
    for (const size_t count : {size_t{0}, size_t{1}, size_t{4096}, size_t{5000}, (size_t{1} << 20) + 4097}) {
        std::vector<float> values;
        for (size_t i = 0; i < count; ++i) values.push_back(static_cast<float>(i % 7919) * 0.37f - 1000);
        std::string hashes, piece;
        for (size_t i = 0; i < count; ++i) {
            const uint16_t bits = bf16_from_float(values[i]);
            piece += {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
            if (piece.size() < size_t{2} << 20 && i + 1 < count) continue;
            hashes += sha256(piece);
            piece.clear();
        }
        EXPECT_EQ(sha256_as_bf16(view_of(values)), sha256(hashes)) << count;
        EXPECT_EQ(sha256_as_bf16(view_of(std::vector<double>(values.begin(), values.end()))), sha256(hashes)) << count;
    }
}

}  // namespace
}  // namespace colonnade
