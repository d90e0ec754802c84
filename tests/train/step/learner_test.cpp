// Learner::update: clips gradients; changes nothing if they are not finite or beyond a limit, and names what is bad.

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
    StepResult update(const AdamWSettings& settings, double max_norm, const UpdateLimits& limits = {}) const {
        learner_->update(learner_->context(), settings, 1e-3, max_norm, limits);
        return learner_->result();
    }
    /// Weights and both moments.
    std::vector<double> state() const {
        std::vector<double> all = numbers_of(*learner_, learner_->weights());
        for (const auto& array : state_of(*learner_)) all.insert(all.end(), array.begin(), array.end());
        return all;
    }

    std::unique_ptr<Learner> learner_;
};

TEST_P(Update, ClipsToTheNorm) {
    const double full = 0.5 * std::sqrt(static_cast<double>(learner_->parameters().count()));
    for (const double limit : {0.0, 0.1, 1e9}) {
        set_gradients(0.5f);
        const auto before = state_of(*learner_).at(1);
        const StepResult result = update({.beta1 = 0.5}, limit);
        EXPECT_NEAR(result.gradient_norm, full, 1e-9 * full);
        const double factor = limit == 0.1 ? limit / (full + 1e-6) : 1;
        EXPECT_DOUBLE_EQ(result.clip_factor, factor);
        // The first moment shows which gradient the optimizer got.
        const auto at = static_cast<size_t>(learner_->parameters().all()[0].begin);
        EXPECT_NEAR(state_of(*learner_).at(1)[at], 0.5 * before[at] + 0.5 * 0.5 * factor, 1e-7);
    }
}

TEST_P(Update, CountsGradientsOnceHoweverOftenTheirNormIsAsked) {
    set_gradients(0.5f);
    const double norm = learner_->gradient_norm(learner_->context());
    EXPECT_TRUE(learner_->is_finite(learner_->context()));
    EXPECT_EQ(update({}, 0).gradient_norm, norm);
}

TEST_P(Update, RefusesGradientsThatAreNotFinite) {
    const Parameter& p = *learner_->parameters().named("model.layers.0.self_attn.k_proj.weight");
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
        set_gradients(0.5f);
        EXPECT_EQ(learner_->first_not_finite(learner_->context()), "");
        set_gradients(0.5f, p.begin + 3, bad);
        EXPECT_EQ(learner_->first_not_finite(learner_->context()), "the gradient of " + p.name);
        set_gradients(0.5f, p.begin + 3, bad);
        const auto before = state();
        expect_error(Exit::numerics, "the gradient norm of step 1 is not finite; the weights are those of step 0",
                     [&] { update({}, 1); });
        EXPECT_TRUE(state() == before);
        EXPECT_EQ(learner_->updates(), 0);
    }
    set_gradients(1e30f);  // finite, and so is its square in double
    EXPECT_TRUE(std::isfinite(update({}, 1).gradient_norm));
}

TEST_P(Update, BeyondALimitChangesNothing) {
    const double norm = 0.5 * std::sqrt(static_cast<double>(learner_->parameters().count()));
    set_gradients(0.5f);
    const auto first = state();
    const double loss = learner_->loss().mean();
    ASSERT_GT(loss, 0);
    for (const UpdateLimits& limits :
         {UpdateLimits{.loss = 0.999 * loss}, UpdateLimits{.gradient_norm = 0.999 * norm}}) {
        set_gradients(0.5f);
        const StepResult result = update({}, 1, limits);
        EXPECT_FALSE(result.applied);
        EXPECT_NEAR(result.gradient_norm, norm, 1e-9 * norm);
        EXPECT_TRUE(state() == first);
    }
    EXPECT_EQ(learner_->updates(), 2) << "a step that is left out counts";
    set_gradients(0.5f);
    EXPECT_TRUE(update({}, 1, {.loss = 1.001 * loss, .gradient_norm = 1.001 * norm, .hold = true}).applied);
    EXPECT_FALSE(state() == first);
}

/// On a GPU the update after a bad one is enqueued before anybody knows.
TEST_P(Update, HoldsBackThoseAfterABadOne) {
    const auto enqueue = [&](float gradient, int64_t bad_place, const UpdateLimits& limits) {
        set_gradients(gradient, bad_place, NAN);
        learner_->update(learner_->context(), {}, 1e-3, 1, limits);
    };
    set_gradients(0.5f);
    update({}, 1);
    const auto before = state();
    const int64_t place = learner_->parameters().all()[0].begin + 1;
    enqueue(0.5f, place, {});
    enqueue(0.5f, 0, {});
    expect_error(Exit::numerics, "of step 2 is not finite", [&] { learner_->result(); });
    EXPECT_EQ(learner_->updates(), 1);
    EXPECT_TRUE(state() == before);
    enqueue(0.5f, 0, {.gradient_norm = 1e-9, .hold = true});
    enqueue(0.5f, 0, {});
    EXPECT_FALSE(learner_->result().applied);
    EXPECT_EQ(learner_->updates(), 1);
    EXPECT_TRUE(state() == before);
    // Then training goes on, with no result of the updates that never happened.
    set_gradients(0.5f);
    EXPECT_TRUE(update({}, 1).applied);
    EXPECT_EQ(learner_->updates(), 2);
    EXPECT_FALSE(state() == before);
    expect_error(Exit::internal, "no update has a result", [&] { learner_->result(); });
}

TEST_P(Update, NamesBadWeights) {
    EXPECT_EQ(learner_->first_bad_weight(), "");
    const Parameter& p = *learner_->parameters().named("model.layers.1.mlp.up_proj.weight");
    learner_->fill_weights([&](const Tensor& weights) { weights.as<float>()[p.end() - 1] = INFINITY; });
    EXPECT_EQ(learner_->first_bad_weight(), p.name);
    set_gradients(0.5f);
    EXPECT_EQ(learner_->first_not_finite(learner_->context()), "the loss");
}

/// One rank with a communicator (NCCL on a GPU) gives the same bits as one without, with both values of zero_stage.
TEST_P(Update, TokensOutsideTheVocabularyReachNoDevice) {
    const auto vocab = static_cast<int32_t>(learner_->config().vocab_size);
    const Sample sample = random_sample(1, 0, {8}, vocab);
    const auto before = state();
    for (const int32_t bad : {vocab, -1, INT32_MAX, INT32_MIN}) {
        Batch batch = make_batch({{&sample}});
        const auto accumulate = [&] {
            learner_->begin_step();
            learner_->accumulate(learner_->context(), batch, {.total = batch.target_weight});
        };
        const std::string outside = fmt::format("token {} is outside the vocabulary [0, {})", bad, vocab);
        batch.tokens[3] = bad;
        expect_error(Exit::data, "position 3: " + outside, accumulate);
        batch = make_batch({{&sample}});
        batch.targets[0] = bad;
        expect_error(Exit::data, "target 0: " + outside, accumulate);
    }
    // The device still works.
    set_gradients(0.5f);
    EXPECT_TRUE(update({}, 1).applied);
    EXPECT_FALSE(state() == before);
}

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
        std::vector<double>& all = states.emplace_back();
        for (const auto& array : state_of(learner)) all.insert(all.end(), array.begin(), array.end());
        all.push_back(static_cast<double>(learner.weights_checksum() >> 11));
    }
    EXPECT_TRUE(states[1] == states[0]);
    EXPECT_TRUE(states[2] == states[0]);
}

INSTANTIATE_TEST_SUITE_P(Devices, Update, testing::Values(DType::f32, DType::bf16),
                         [](const auto& dtype) { return name_of(dtype.param); });

}  // namespace
}  // namespace colonnade
