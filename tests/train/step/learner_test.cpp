// Learner::update: clips gradients; changes nothing if they are not finite, and names their parameter.

#include "train/step/learner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/tiny_model.h"

namespace colonnade {
namespace {

/// Runs in f32 on the CPU, in bf16 on a GPU.
class Update : public testing::TestWithParam<DType> {
  protected:
    void SetUp() override {
        if (GetParam() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
        learner_ = tiny_learner(small_config(Architecture::llama), GetParam(), 1, 8);
    }
    /// Sets gradients to `value`, and to `bad` in one place.
    void set_gradients(float value, int64_t place = 0, float bad = 0) const {
        std::vector<float> g(static_cast<size_t>(learner_->parameters().size()));
        for (const Parameter& p : learner_->parameters().all()) std::fill_n(g.begin() + p.begin, p.size(), value);
        if (place > 0) g[static_cast<size_t>(place)] = bad;
        learner_->begin_step();
        // A micro-step comes first, because an update without one clears the gradients.
        const Sample sample = random_sample(1, 0, {8}, learner_->config().vocab_size);
        const Batch batch = make_batch({{&sample}});
        learner_->accumulate(learner_->context(), batch, {.total = batch.target_weight});
        const Tensor& gradients = learner_->gradients();
        if (Gpu* gpu = learner_->options().gpu)
            gpu->upload(gradients, g.data());
        else
            std::copy(g.begin(), g.end(), gradients.as<float>());
    }
    StepResult update(const AdamWSettings& settings, double max_norm) const {
        learner_->update(learner_->context(), settings, 1e-3, max_norm);
        return learner_->result();
    }

    std::unique_ptr<Learner> learner_;
};

TEST_P(Update, ClipsToTheNorm) {
    const double full = 0.5 * std::sqrt(static_cast<double>(learner_->parameters().count()));
    for (const double limit : {0.0, 0.1, 1e9}) {
        set_gradients(0.5f);
        const auto before = numbers_of(*learner_, learner_->m());
        const StepResult result = update({.beta1 = 0.5}, limit);
        EXPECT_NEAR(result.gradient_norm, full, 1e-9 * full);
        const double factor = limit == 0.1 ? limit / (full + 1e-6) : 1;
        EXPECT_DOUBLE_EQ(result.clip_factor, factor);
        // The first moment shows which gradient the optimizer got.
        const auto at = static_cast<size_t>(learner_->parameters().all()[0].begin);
        EXPECT_NEAR(numbers_of(*learner_, learner_->m())[at], 0.5 * before[at] + 0.5 * 0.5 * factor, 1e-7);
    }
}

TEST_P(Update, RefusesGradientsThatAreNotFinite) {
    const Parameter& p = *learner_->parameters().named("model.layers.0.self_attn.k_proj.weight");
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
        set_gradients(0.5f, p.begin + 3, bad);
        const auto w = numbers_of(*learner_, learner_->weights()), m = numbers_of(*learner_, learner_->m());
        expect_error(Exit::numerics, "first in model.layers.0.self_attn.k_proj.weight", [&] { update({}, 1); });
        EXPECT_TRUE(numbers_of(*learner_, learner_->weights()) == w && numbers_of(*learner_, learner_->m()) == m);
        EXPECT_EQ(learner_->updates(), 0);
    }
    set_gradients(1e30f);  // finite, and so is its square in double
    EXPECT_TRUE(std::isfinite(update({}, 1).gradient_norm));
}

/// One rank with a communicator (NCCL on a GPU) gives the same bits as one without, with both values of zero_stage.
TEST_P(Update, IsTheSameWithACommunicatorOfOneRank) {
    if (GetParam() == DType::bf16 && !built_with_nccl()) GTEST_SKIP() << "a build without NCCL";
    const ModelConfig config = small_config(Architecture::llama, false);
    const auto communicator = Communicator::join(one_rank(), GetParam() == DType::bf16 ? test_gpu() : nullptr, true);
    std::vector<std::vector<double>> states;
    for (const int64_t zero_stage : {-1, 0, 1}) {
        LearnerOptions options = learner_->options();
        options.max_length = 32;
        if (zero_stage >= 0) options.sync = {.communicator = communicator.get(), .zero_stage = zero_stage};
        Learner learner(config, options);
        randomize(learner, 3);
        const Context ctx = learner.context({.deterministic = true});
        for (uint64_t step = 0; step < 2; ++step) {
            const Sample sample = random_sample(step, 3, {11, 7}, config.vocab_size);
            const Batch batch = make_batch({{&sample}});
            learner.begin_step();
            learner.accumulate(ctx, batch, {.total = 2 * batch.target_weight});
            learner.accumulate(ctx, batch, {.total = 2 * batch.target_weight, .last = true});
            learner.update(ctx, {.weight_decay = 0.1}, 1e-2, 0.1);
            learner.result();
        }
        std::vector<double>& all = states.emplace_back(numbers_of(learner, learner.weights()));
        for (const Tensor* state : {&learner.m(), &learner.v()})
            for (const double x : numbers_of(learner, *state)) all.push_back(x);
        all.push_back(static_cast<double>(learner.weights_checksum() >> 11));
    }
    EXPECT_TRUE(states[1] == states[0]);
    EXPECT_TRUE(states[2] == states[0]);
}

INSTANTIATE_TEST_SUITE_P(Devices, Update, testing::Values(DType::f32, DType::bf16),
                         [](const auto& dtype) { return name_of(dtype.param); });

}  // namespace
}  // namespace colonnade
