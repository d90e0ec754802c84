// Noise on embeddings: its formula, written down again; one sample gets the same noise wherever it lies; a GPU gives
// the bits of the CPU, rounded to bf16.

#include "layers/embedding_noise.h"

#include <cmath>

#include "engine/device/philox.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

struct Case {
    int64_t hidden;
    std::vector<float> x, scales;
    std::vector<int64_t> streams;
    std::vector<int32_t> positions;

    Case(int64_t hidden_size, int64_t tokens) : hidden(hidden_size) {
        x = random_values<float>(tokens * hidden, 1);
        for (float& value : x) value = float_from_bf16(bf16_from_float(value));
        for (int64_t t = 0; t < tokens; ++t) {
            scales.push_back(0.05f * static_cast<float>(1 + t % 3));
            streams.push_back(t < tokens / 2 ? (int64_t{1} << 40) + 5 : -77);
            positions.push_back(static_cast<int32_t>(t < tokens / 2 ? t : t - tokens / 2));
        }
    }
    int64_t tokens() const { return std::ssize(scales); }
    void on_cpu(uint64_t seed) {
        add_embedding_noise({}, {.x = tensor_of(x, {tokens(), hidden}),
                                 .scales = tensor_of(scales, {tokens()}),
                                 .streams = tensor_of(streams, {tokens()}),
                                 .positions = tensor_of(positions, {tokens()}),
                                 .seed = seed});
    }
};

TEST(EmbeddingNoise, IsItsFormula) {
    Case noisy(7, 10), before(7, 10);
    noisy.on_cpu(9);
    double sum = 0;
    for (int64_t t = 0; t < 10; ++t)
        for (int64_t j = 0; j < 7; ++j) {
            const auto at = static_cast<size_t>(t * 7 + j), row = static_cast<size_t>(t);
            const Philox random{9, static_cast<uint64_t>(before.streams[row])};
            const uint32_t word = random.block(static_cast<uint64_t>(before.positions[row]) * 2 +
                                               static_cast<uint64_t>(j / 4))[static_cast<size_t>(j % 4)];
            const double u = word / 0x1p31 - 1;
            EXPECT_NEAR(noisy.x[at], before.x[at] + before.scales[row] * u, 1e-6);
            EXPECT_LE(std::abs(noisy.x[at] - before.x[at]), before.scales[row] * 1.001f);
            sum += u;
        }
    EXPECT_LT(std::abs(sum / 70), 5 / std::sqrt(3 * 70.0));
}

TEST(EmbeddingNoise, IsTheSameWhereverASampleLies) {
    Case a(13, 8), b(13, 8);
    for (Case* c : {&a, &b})
        std::fill(c->x.begin(), c->x.end(), 0.0f), std::fill(c->scales.begin(), c->scales.end(), 1.0f);
    std::rotate(b.streams.begin(), b.streams.begin() + 4, b.streams.end());
    a.on_cpu(3);
    b.on_cpu(3);
    EXPECT_TRUE(std::equal(a.x.begin(), a.x.begin() + 4 * 13, b.x.begin() + 4 * 13));
    EXPECT_TRUE(std::equal(b.x.begin(), b.x.begin() + 4 * 13, a.x.begin() + 4 * 13));
    EXPECT_FALSE(std::equal(a.x.begin(), a.x.begin() + 4 * 13, b.x.begin()));
}

struct EmbeddingNoiseOnDevice : DeviceCase {};

TEST_P(EmbeddingNoiseOnDevice, HasTheBitsOfTheCpu) {
    for (const int64_t hidden : {5, 64, 2051}) {
        release();
        Case c(hidden, 12);
        const Twin x = twin(dtype(), {12, hidden}, {c.x.begin(), c.x.end()});
        const Twin scales = twin(DType::f32, {12}, {c.scales.begin(), c.scales.end()}),
                   positions = indices(c.positions);
        const Twin streams = twin(DType::i64, {12}, {c.streams.begin(), c.streams.end()});
        add_embedding_noise(context(), {.x = x.device,
                                        .scales = scales.device,
                                        .streams = streams.device,
                                        .positions = positions.device,
                                        .seed = 0x123456789abcdefu});
        c.on_cpu(0x123456789abcdefu);
        const std::vector<double> found = read(x.device);
        size_t wrong = 0;
        for (size_t i = 0; i < found.size(); ++i)
            wrong += found[i] != (on_gpu() ? float_from_bf16(bf16_from_float(c.x[i])) : c.x[i]);
        EXPECT_EQ(wrong, 0u) << hidden;
    }
}
INSTANTIATE_TEST_SUITE_P(Devices, EmbeddingNoiseOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
