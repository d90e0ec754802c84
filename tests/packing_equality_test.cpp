// links: train
// Packed equals separate: loss and every gradient of a batch of packs equal the sums over its samples run alone. And
// the same for accumulation: one micro-step of four packs equals four micro-steps of one.

#include <gtest/gtest.h>

#include "tiny_model.h"

namespace colonnade {
namespace {

struct Outcome {
    LossSums sums;
    std::vector<double> gradients;
};

Outcome run(Learner& learner, const std::vector<Batch>& batches, double total_weight) {
    const Context ctx;
    learner.zero_gradients();
    Outcome outcome;
    for (const Batch& batch : batches) outcome.sums += learner.accumulate(ctx, batch, total_weight);
    dispatch_float(learner.gradients().dtype, [&]<typename T>() {
        for (const T g : values_of<T>(learner.gradients())) outcome.gradients.push_back(static_cast<double>(g));
    });
    return outcome;
}

double relative_gap(const std::vector<double>& a, const std::vector<double>& b) {
    double gap = 0, scale = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        gap = std::max(gap, std::abs(a[i] - b[i]));
        scale = std::max(scale, std::abs(b[i]));
    }
    return gap / scale;
}

class Packing : public testing::TestWithParam<std::tuple<Architecture, DType>> {
  protected:
    // Long enough that packs span several attention tiles and begin and end inside them.
    static std::vector<Sample> samples(int64_t vocab) {
        std::vector<Sample> s;
        for (const int64_t length : {70, 1, 33, 64, 2, 90, 17, 128, 5})
            s.push_back(random_sample(static_cast<uint64_t>(length), 0, {length}, vocab));
        s.push_back(random_sample(99, 20, {15, 30}, vocab));
        return s;
    }
};

TEST_P(Packing, EqualsSeparateSamples) {
    const auto [architecture, dtype] = GetParam();
    const ModelConfig config = tiny_config(architecture, false);
    const std::vector<Sample> s = samples(config.vocab_size);
    const auto learner = tiny_learner(config, dtype, 2, 256);
    const Batch packed = make_batch({{&s[0], &s[1], &s[2], &s[9], &s[4]}, {&s[3], &s[5], &s[6], &s[8]}});
    const Batch rest = make_batch({{&s[7]}});
    const double total = packed.target_weight + rest.target_weight;
    std::vector<Batch> separate;
    for (const Sample& sample : s) separate.push_back(make_batch({{&sample}}));

    const Outcome a = run(*learner, {packed, rest}, total), b = run(*learner, separate, total);
    const double rounding = dtype == DType::f64 ? 1e-13 : 2e-6;
    EXPECT_NEAR(a.sums.nll, b.sums.nll, rounding * b.sums.nll);
    EXPECT_EQ(a.sums.weight, b.sums.weight);
    EXPECT_LE(relative_gap(a.gradients, b.gradients), rounding);
}

TEST_P(Packing, OrderInAPackDoesNotMatter) {
    const auto [architecture, dtype] = GetParam();
    const ModelConfig config = tiny_config(architecture, true);
    const std::vector<Sample> s = samples(config.vocab_size);
    const auto learner = tiny_learner(config, dtype, 1, 256);
    const Batch one = make_batch({{&s[0], &s[2], &s[9]}}), other = make_batch({{&s[9], &s[0], &s[2]}});
    const Outcome a = run(*learner, {one}, one.target_weight), b = run(*learner, {other}, one.target_weight);
    const double rounding = dtype == DType::f64 ? 1e-13 : 2e-6;
    EXPECT_NEAR(a.sums.nll, b.sums.nll, rounding * b.sums.nll);
    EXPECT_LE(relative_gap(a.gradients, b.gradients), rounding);
}

TEST_P(Packing, AccumulationOneTimesFourEqualsFourTimesOne) {
    const auto [architecture, dtype] = GetParam();
    const ModelConfig config = tiny_config(architecture, false);
    const std::vector<Sample> s = samples(config.vocab_size);
    const auto learner = tiny_learner(config, dtype, 4, 128);
    const std::vector<std::vector<const Sample*>> packs = {
        {&s[0], &s[2]}, {&s[3], &s[4]}, {&s[5]}, {&s[6], &s[8], &s[9]}};
    const Batch whole = make_batch(packs);
    std::vector<Batch> parts;
    for (const auto& pack : packs) parts.push_back(make_batch({pack}));
    const Outcome a = run(*learner, {whole}, whole.target_weight), b = run(*learner, parts, whole.target_weight);
    const double rounding = dtype == DType::f64 ? 1e-13 : 2e-6;
    EXPECT_NEAR(a.sums.nll, b.sums.nll, rounding * b.sums.nll);
    EXPECT_LE(relative_gap(a.gradients, b.gradients), rounding);
}

INSTANTIATE_TEST_SUITE_P(Families, Packing,
                         testing::Combine(testing::Values(Architecture::llama, Architecture::mistral,
                                                          Architecture::qwen2, Architecture::qwen3),
                                          testing::Values(DType::f32, DType::f64)),
                         [](const auto& test) {
                             return std::string(name_of(std::get<0>(test.param))) + "_" +
                                    name_of(std::get<1>(test.param));
                         });

TEST(Learner, EmptyPacksChangeNothing) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const Sample s = random_sample(5, 0, {40}, config.vocab_size);
    const auto learner = tiny_learner(config, DType::f32, 2, 64);
    const Batch full = make_batch({{&s}}), padded = make_batch({{&s}, {}}), empty = make_batch({{}, {}});
    const Outcome a = run(*learner, {full}, full.target_weight), b = run(*learner, {padded, empty}, full.target_weight);
    EXPECT_EQ(a.sums.nll, b.sums.nll);
    // The padding's rows enter the weight gradients as exact zeros, but change how the matmul blocks its sums.
    EXPECT_LE(relative_gap(a.gradients, b.gradients), 1e-6);
}

TEST(Learner, RefusesGradientsThatAreNotFinite) {
    const ModelConfig config = tiny_config(Architecture::llama, false);
    const Sample s = random_sample(5, 0, {40}, config.vocab_size);
    const auto learner = tiny_learner(config, DType::f32, 1, 64);
    const Batch batch = make_batch({{&s}});
    learner->zero_gradients();
    learner->accumulate({}, batch, batch.target_weight);
    const Parameter& p = learner->parameters().find("model.layers.1.self_attn.k_proj.weight");
    learner->gradients().as<float>()[p.begin + 3] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> before = values_of<float>(learner->weights());
    try {
        learner->update({}, {}, 1e-3, 1.0);
        FAIL() << "the update went through";
    } catch (const Error& e) {
        EXPECT_EQ(e.exit(), Exit::numerics);
        EXPECT_NE(std::string(e.what()).find(p.name), std::string::npos) << e.what();
    }
    EXPECT_EQ(before, values_of<float>(learner->weights()));
    EXPECT_EQ(learner->updates(), 0);
}

}  // namespace
}  // namespace colonnade
