// The checksum detects a changed word and swapped words, and is the same on a GPU.

#include "engine/device/checksum.h"

#include <gtest/gtest.h>

#include "engine/device/arena.h"
#include "engine/device/philox.h"
#include "tests/support/test_gpu.h"

namespace colonnade {
namespace {

std::vector<float> random_floats(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(Philox{3, 0}.normal(i));
    return values;
}

uint64_t of(std::vector<float>& values) {
    return checksum(Context(), Tensor(values.data(), DType::f32, {std::ssize(values)}));
}

TEST(Checksum, EqualsItsFormula) {
    std::vector<float> values = random_floats(1000);
    uint64_t expected = 0;
    for (size_t i = 0; i < values.size(); ++i) expected += std::bit_cast<uint32_t>(values[i]) * checksum_factor(i);
    EXPECT_EQ(of(values), expected);
    std::vector<float> none;
    EXPECT_EQ(of(none), 0u);
}

TEST(Checksum, DetectsEveryChangedBitAndSwappedWords) {
    std::vector<float> values = random_floats(300);
    const uint64_t before = of(values);
    for (size_t i = 0; i < values.size(); ++i)
        for (const int bit : {0, 13, 31}) {
            const float kept = values[i];
            values[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(kept) ^ (1u << bit));
            ASSERT_NE(of(values), before) << i << ", bit " << bit;
            values[i] = kept;
        }
    std::swap(values[10], values[200]);
    EXPECT_NE(of(values), before);
}

TEST(Checksum, IsTheSumOfThoseOfPieces) {
    std::vector<float> values = random_floats(1000);
    const Tensor all(values.data(), DType::f32, {1000});
    EXPECT_EQ(checksum(Context(), all.slice(0, 0, 300)) + checksum(Context(), all.slice(0, 300, 1000), {}, 300),
              of(values));
}

TEST(Checksum, IsTheSameOnAGpu) {
    Gpu* gpu = test_gpu();
    if (!gpu) GTEST_SKIP() << "no CUDA device";
    for (const int64_t count : {int64_t{1}, int64_t{255}, int64_t{1} << 20}) {
        std::vector<float> values = random_floats(count);
        Arena arena(Device::cuda, size_t{8} << 20);
        const Tensor data = arena.tensor("data", DType::f32, {count}), sum = arena.tensor("sum", DType::i64, {1});
        gpu->upload(data, values.data());
        const Context ctx{.device = Device::cuda, .gpu = gpu};
        EXPECT_EQ(checksum(ctx, data, sum), of(values));
        const int64_t half = count / 2;
        EXPECT_EQ(checksum(ctx, data.slice(0, 0, half), sum) + checksum(ctx, data.slice(0, half, count), sum, half),
                  of(values));
    }
}

}  // namespace
}  // namespace colonnade
