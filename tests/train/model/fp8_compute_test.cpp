// compute: fp8. What a token is rounded to does not depend on its row: in double, packed equals separate. Gradients are
// near those of exact products. (That bits do not depend on what is recomputed: mlp_tiles_test.cpp.)

#include <gtest/gtest.h>

#include "tests/support/answer_trees.h"
#include "tests/support/expect_error.h"
#include "tests/support/step_outcome.h"
#include "tests/support/tiny_lora.h"

namespace colonnade {
namespace {

struct Fp8Compute : testing::TestWithParam<std::tuple<Architecture, DType>> {
    void SetUp() override {
        if (dtype() != DType::bf16) return;
        if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
        if (const std::string why = why_no_fp8_products(test_gpu()->compute_capability()); !why.empty())
            GTEST_SKIP() << why;
    }
    /// Of gradients, relative. Rounding to e4m3 moves an operand by up to 1/16, by 1/40 in the mean; a gradient in the
    /// lower of two layers went through some twenty roundings.
    static constexpr double far = 0.2;
    static DType dtype() { return std::get<1>(GetParam()); }
    static ModelConfig config() { return small_config(std::get<0>(GetParam()), false); }
    static std::vector<Sample> samples() {
        std::vector<Sample> s;
        for (const int64_t length : {70, 1, 33, 90, 17, 5})
            s.push_back(random_sample(static_cast<uint64_t>(length), 0, {length}, config().vocab_size));
        s.push_back(random_sample(99, 20, {15, 30}, config().vocab_size));
        return s;
    }
    static std::vector<Batch> packed(const std::vector<Sample>& s) {
        return {make_batch({{&s[0], &s[1], &s[2], &s[6]}, {&s[3], &s[4], &s[5]}})};
    }
    /// Gradients and loss of the same weights, multiplied exactly.
    static Outcome exact(const std::vector<Batch>& batches, double total) {
        return run(*tiny_learner(config(), DType::f64, 2, 256), batches, total);
    }
};

TEST_P(Fp8Compute, PackedEqualsSeparate) {
    const std::vector<Sample> s = samples();
    const std::vector<Batch> rows = packed(s), alone = separate(s);
    const double total = rows[0].target_weight;
    const auto learner = tiny_learner(config(), dtype(), 2, 256, {.fp8 = true});
    const Outcome a = run(*learner, rows, total), b = run(*learner, alone, total);
    if (dtype() == DType::f64) {
        EXPECT_NEAR(a.sums.nll, b.sums.nll, 1e-13 * b.sums.nll);
        EXPECT_LE(distance(a.gradients, b.gradients), 1e-12);
        return;
    }
    // In bf16 the place of a sample decides how its sums are split: what differs is less than the error of rounding.
    EXPECT_LE(distance(a.gradients, b.gradients), distance(a.gradients, exact(rows, total).gradients));
}

TEST_P(Fp8Compute, GradientsAreNearTheExactOnes) {
    const std::vector<Sample> s = samples();
    const std::vector<Batch> rows = packed(s);
    const double total = rows[0].target_weight;
    const Outcome expected = exact(rows, total), plain = run(*tiny_learner(config(), dtype(), 2, 256), rows, total),
                  found = run(*tiny_learner(config(), dtype(), 2, 256, {.fp8 = true}), rows, total);
    const double from_exact = distance(found.gradients, expected.gradients);
    EXPECT_LE(from_exact, far);
    EXPECT_GT(from_exact, 2 * distance(plain.gradients, expected.gradients));  // it does round
    EXPECT_NEAR(found.sums.nll, expected.sums.nll, 5e-3 * expected.sums.nll);
    if (dtype() == DType::f64) return;
    // A GPU rounds what the emulation in double rounds.
    const Outcome emulated = run(*tiny_learner(config(), DType::f64, 2, 256, {.fp8 = true}), rows, total);
    EXPECT_LT(distance(found.gradients, emulated.gradients), from_exact);
}

/// Codes of a base in e4m3 are multiplied as they are: no second rounding. A base in nf4 is rounded again.
TEST_P(Fp8Compute, ABaseInFewerBitsStaysNear) {
    const std::vector<Sample> s = samples();
    const std::vector<Batch> rows = packed(s);
    const double total = rows[0].target_weight;
    const auto gradients = [&](std::optional<WeightCode> code, bool fp8) {
        return gradients_of(*lora_learner(config(), dtype(), lora_of(), 2, 256, {.fp8 = fp8}, code), rows, total);
    };
    for (const WeightCode code : {WeightCode::fp8, WeightCode::nf4})
        EXPECT_LE(distance(gradients(code, true), gradients(code, false)), far) << name_of(code);
}

INSTANTIATE_TEST_SUITE_P(Families, Fp8Compute,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::qwen2,
                                                          Architecture::qwen3),
                                          testing::Values(DType::f64, DType::bf16)),
                         name_of_case);

// The room for rounded operands is planned: a code for each element of the largest input, and of the largest weight.
TEST(Fp8ComputePlan, HasRoomForOneProduct) {
    const ModelConfig config = small_config(Architecture::llama);
    LearnerOptions options{.max_length = 1024};
    const size_t plain = Learner::plan(config, options, Device::cuda).bytes();
    options.fp8 = true;
    const int64_t more = static_cast<int64_t>(Learner::plan(config, options, Device::cuda).bytes() - plain);
    const int64_t codes = 1024 * std::max(2 * config.intermediate_size, config.qkv_width()),
                  weight = std::max(2 * config.intermediate_size, config.qkv_width()) * config.hidden_size;
    EXPECT_GE(more, codes + weight);
    EXPECT_LE(more, codes * 33 / 32 + weight + (64 << 10));
}

// Without a GPU, too: before anything is allocated.
TEST(Fp8ComputePlan, RefusesSidesThatAGpuCannotMultiply) {
    const LearnerOptions options{.max_length = 64, .fp8 = true};
    expect_error(
        Exit::config,
        "compute: fp8: a linear layer of this model has a side of 12, expected a multiple of 16; use compute: bf16",
        [&] { Learner::plan(tiny_config(Architecture::llama), options, Device::cuda); });
    Learner::plan(tiny_config(Architecture::llama), options, Device::cpu);
}

}  // namespace
}  // namespace colonnade
