// Optimizer state in host memory: every update has the bits of one with all of it on the device, on each device, for every
// kind of moments, for whole models, adapters and frozen layers, and with state that is sharded over ranks.

#include <gtest/gtest.h>

#include "tests/support/file_test.h"
#include "tests/support/tiny_lora.h"
#include "tests/support/tiny_model.h"
#include "train/folders/checkpoint.h"

namespace colonnade {
namespace {

struct Kind {
    DType dtype, moments;
};

class OffloadedOptimizer : public FileTest, public testing::WithParamInterface<Kind> {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        if (GetParam().dtype == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    /// `share` of the state in host memory, in pieces of 192 elements: a model has dozens of them.
    LearnerOptions options(double share) const {
        LearnerOptions o = tiny_options(GetParam().dtype, 1, 32, {});
        o.moments = GetParam().moments;
        o.offloaded_optimizer = share;
        o.hosted_piece = 192;
        return o;
    }
    static void train(Learner& learner, int64_t first, int64_t last, double max_norm = 0.1) {
        const Context ctx = learner.context({.deterministic = true});
        for (int64_t step = first; step < last; ++step) {
            const Sample sample = random_sample(static_cast<uint64_t>(step), 3, {11, 7}, learner.config().vocab_size);
            const Batch batch = make_batch({{&sample}});
            learner.begin_step();
            learner.accumulate(ctx, batch, {.total = 2 * batch.target_weight});
            learner.accumulate(ctx, batch, {.total = 2 * batch.target_weight, .last = true});
            learner.update(ctx, {.weight_decay = 0.1}, 1e-2, max_norm);
        }
        for (int64_t step = first; step < last; ++step) learner.result();
    }
    /// Trains with shares of the state in host memory, and compares.
    void expect_equal_bits(const LearnerOptions& with, const std::function<void(Learner&)>& fill) {
        std::optional<std::vector<std::vector<double>>> expected;
        std::vector<double> weights;
        for (const double share : {0.0, 0.35, 1.0}) {
            LearnerOptions o = with;
            o.offloaded_optimizer = share;
            Learner learner(config_, o);
            fill(learner);
            train(learner, 0, 20);
            if (!expected) {
                expected = state_of(learner);
                weights = numbers_of(learner, learner.weights());
                continue;
            }
            EXPECT_TRUE(state_of(learner) == *expected) << share;
            EXPECT_TRUE(numbers_of(learner, learner.weights()) == weights) << share;
        }
    }

    const ModelConfig config_ =
        GetParam().dtype == DType::bf16 ? small_config(Architecture::qwen3) : tiny_config(Architecture::qwen3);
};

TEST_P(OffloadedOptimizer, GivesTheSameBits) {
    expect_equal_bits(options(0), [](Learner& learner) { randomize(learner, 1); });
}

TEST_P(OffloadedOptimizer, GivesTheSameBitsToAdapters) {
    LearnerOptions o = options(0);
    o.lora = LoraSettings{.rank = 4, .alpha = 8, .dropout = 0.1, .targets = {"q_proj", "v_proj", "down_proj"}};
    expect_equal_bits(o, [](Learner& learner) {
        const Initialization random{.seed = 5, .range = 0.1};
        learner.fill_base([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
        learner.fill_weights([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
    });
}

// Both plans together hold what the one without offload has: the state moves, and nothing else changes.
TEST_P(OffloadedOptimizer, MovesBytesFromOnePlanToTheOther) {
    const Device device = GetParam().dtype == DType::bf16 ? Device::cuda : Device::cpu;
    const auto sum = [&](double share) {
        LearnerOptions o = options(share);
        o.max_length = 4096;  // activations that are larger than the pieces
        return std::pair(Learner::plan(config_, o, device).bytes(), Learner::host_plan(config_, o, device).bytes());
    };
    const auto [all, none] = sum(0);
    EXPECT_EQ(none, 0u);
    size_t before = 0;
    for (const double share : {0.25, 0.5, 1.0}) {
        const auto [on_device, on_host] = sum(share);
        EXPECT_GT(on_host, before);
        EXPECT_LT(on_device, all);
        // Every tensor begins at a multiple of 256 bytes: five arrays, each in one place or in two.
        EXPECT_NEAR(static_cast<double>(on_device + on_host), static_cast<double>(all), 10 * Arena::alignment);
        before = on_host;
    }
}

// A checkpoint does not depend on where the state was, and resumes with any share of it in host memory.
TEST_P(OffloadedOptimizer, ResumesWithAnotherShare) {
    Learner unbroken(config_, options(0.5));
    randomize(unbroken, 1);
    train(unbroken, 0, 3);
    const std::string folder = path("checkpoint-3");
    save_checkpoint(folder, unbroken, {.step = 3, .since_log = {}, .data_key = "key", .config_yaml = "seed: 42\n"});
    train(unbroken, 3, 6);
    for (const double share : {0.0, 0.2, 1.0}) {
        Learner resumed(config_, options(share));
        EXPECT_EQ(load_checkpoint(folder, resumed).step, 3);
        train(resumed, 3, 6);
        EXPECT_TRUE(state_of(resumed) == state_of(unbroken)) << share;
    }
}

// An update that must not happen leaves all numbers as they are, those in host memory too.
TEST_P(OffloadedOptimizer, KeepsItsStateIfAnUpdateIsLeftOut) {
    Learner learner(config_, options(1));
    randomize(learner, 1);
    train(learner, 0, 2);
    const auto before = state_of(learner);
    const Sample sample = random_sample(9, 3, {11, 7}, config_.vocab_size);
    const Batch batch = make_batch({{&sample}});
    const Context ctx = learner.context();
    learner.begin_step();
    learner.accumulate(ctx, batch, {.total = batch.target_weight, .last = true});
    learner.update(ctx, {}, 1e-2, 0, {.gradient_norm = 1e-30});
    EXPECT_FALSE(learner.result().applied);
    EXPECT_TRUE(state_of(learner) == before);
}

INSTANTIATE_TEST_SUITE_P(Kinds, OffloadedOptimizer,
                         testing::Values(Kind{DType::f32, DType::f32}, Kind{DType::f32, DType::u8},
                                         Kind{DType::f64, DType::f64}, Kind{DType::bf16, DType::f32},
                                         Kind{DType::bf16, DType::bf16}, Kind{DType::bf16, DType::u8}),
                         [](const auto& kind) {
                             return std::string(name_of(kind.param.dtype)) + "_" + name_of(kind.param.moments);
                         });

}  // namespace
}  // namespace colonnade
