// NEFTune: the length in its scale is the sample's, not the row's; packed rows and separate rows, one micro-step and
// several give the same gradients; every update draws anew; evaluation has no noise.

#include "train/step/sample_noise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/tiny_lora.h"

namespace colonnade {
namespace {

TEST(SampleNoise, ScalesByTheLengthOfTheSample) {
    const Sample a = random_sample(1, 0, {9}, 29), b = random_sample(2, 2, {3}, 29);
    const Batch batch = make_batch({{&a, &b}, {&b}});
    const int64_t tokens = batch.tokens_total();
    Arena arena(Device::cpu, 1 << 16);
    const SampleNoise noise = SampleNoise::lay_out(arena, tokens);
    noise.fill({}, batch, {.alpha = 5, .hidden = 12, .update = 3});
    const float* scale = noise.scales.as<float>();
    const int64_t* stream = noise.streams.as<int64_t>();
    EXPECT_EQ(scale[0], static_cast<float>(5 / std::sqrt(9 * 12.0)));
    EXPECT_EQ(scale[8], scale[0]);
    EXPECT_EQ(scale[9], static_cast<float>(5 / std::sqrt(5 * 12.0)));
    EXPECT_EQ(scale[batch.length], scale[9]);
    EXPECT_EQ(stream[batch.length], stream[9]) << "the same sample in another row";
    EXPECT_NE(stream[0], stream[9]);
    const int64_t before = stream[0];
    noise.fill({}, batch, {.alpha = 5, .hidden = 12, .update = 4});
    EXPECT_NE(stream[0], before) << "another update";
}

class Noise : public testing::TestWithParam<DType> {
  protected:
    std::unique_ptr<Learner> learner(double alpha, Recompute recompute = Recompute::none) const {
        LearnerOptions options = tiny_options(GetParam(), 1, 64, {.recompute = recompute});
        options.neftune_noise_alpha = alpha;
        options.seed = 5;
        const bool gpu = GetParam() == DType::bf16;
        auto made = std::make_unique<Learner>(
            gpu ? small_config(Architecture::llama) : tiny_config(Architecture::llama), options);
        randomize(*made, 3);
        return made;
    }
    void SetUp() override {
        if (GetParam() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
};

TEST_P(Noise, IsThatOfTheSample) {
    const Sample a = random_sample(1, 2, {11}, 29), b = random_sample(2, 0, {17}, 29);
    const Batch packed = make_batch({{&a, &b}}), first = make_batch({{&a}}), second = make_batch({{&b}});
    const double total = packed.target_weight;
    const auto together = gradients_of(*learner(5), {packed}, total),
               apart = gradients_of(*learner(5), {second, first}, total),
               recomputed = gradients_of(*learner(5, Recompute::block), {packed}, total),
               without = gradients_of(*learner(0), {packed}, total);
    const double bound = GetParam() == DType::f64 ? 1e-13 : 2e-2;
    const auto distance = [](const std::vector<double>& x, const std::vector<double>& y) {
        double difference = 0, size = 0;
        for (size_t i = 0; i < x.size(); ++i) difference += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
        return std::sqrt(difference / size);
    };
    EXPECT_LT(distance(apart, together), bound);
    EXPECT_TRUE(recomputed == together);
    EXPECT_GT(distance(without, together), 4 * bound);
}

TEST_P(Noise, IsDrawnAnewByEveryUpdateAndNeverInEvaluation) {
    const Sample a = random_sample(1, 2, {11}, 29);
    const Batch batch = make_batch({{&a}});
    const auto noisy = learner(5), plain = learner(0);
    EXPECT_EQ(noisy->evaluate(noisy->context(), batch).nll, plain->evaluate(plain->context(), batch).nll);
    const auto before = gradients_of(*noisy, batch);
    EXPECT_TRUE(gradients_of(*noisy, batch) == before);
    noisy->set_updates(1);
    EXPECT_FALSE(gradients_of(*noisy, batch) == before);
    noisy->set_updates(0);
    EXPECT_TRUE(gradients_of(*noisy, batch) == before);
}

INSTANTIATE_TEST_SUITE_P(Devices, Noise, testing::Values(DType::f64, DType::bf16),
                         [](const auto& dtype) { return name_of(dtype.param); });

}  // namespace
}  // namespace colonnade
