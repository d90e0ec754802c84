// The gradient of the whole model in double against central differences, for every family.

#include <gtest/gtest.h>

#include "tests/support/tiny_model.h"

namespace colonnade {
namespace {

struct Case {
    const char* name;
    Architecture architecture;
    bool tied, biases;
};

class ModelGradient : public testing::TestWithParam<Case> {};

TEST_P(ModelGradient, EqualsCentralDifferences) {
    ModelConfig config = tiny_config(GetParam().architecture, GetParam().tied);
    if (GetParam().biases) config.qkv_bias = config.o_bias = config.mlp_bias = true;
    const Sample a = random_sample(1, 0, {9}, config.vocab_size), b = random_sample(2, 3, {4, 2}, config.vocab_size),
                 c = random_sample(3, 0, {11}, config.vocab_size);
    const Batch batch = make_batch({{&a, &b}, {&c}});
    const auto learner = tiny_learner(config, DType::f64, batch.packs, batch.length);
    const Context ctx;
    learner->begin_step();
    learner->accumulate(ctx, batch, {.total = batch.target_weight});

    double* w = learner->weights().as<double>();
    const double* g = learner->gradients().as<double>();
    const auto loss = [&] { return learner->evaluate(ctx, batch).mean(); };
    double largest = 0;
    for (int64_t i = 0; i < learner->gradients().numel(); ++i) largest = std::max(largest, std::abs(g[i]));
    for (const Parameter& p : learner->parameters().all()) {
        // About a dozen entries of every parameter.
        const int64_t stride = std::max<int64_t>(1, p.size() / 12);
        for (int64_t i = 0; i < p.size(); i += stride) {
            double& x = w[p.begin + i];
            const double saved = x, h = 1e-5;
            x = saved + h;
            const double up = loss();
            x = saved - h;
            const double down = loss();
            x = saved;
            const double numeric = (up - down) / (2 * h), exact = g[p.begin + i];
            // Relative to the entry, with a lower limit for entries near zero.
            EXPECT_LE(std::abs(numeric - exact), 1e-6 * std::max(std::abs(exact), 1e-2 * largest))
                << p.name << "[" << i << "]";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Families, ModelGradient,
                         testing::Values(Case{"llama_tied", Architecture::llama, true, false},
                                         Case{"llama_untied_biased", Architecture::llama, false, true},
                                         Case{"mistral_window", Architecture::mistral, false, false},
                                         Case{"qwen2_bias_mixed_windows", Architecture::qwen2, true, false},
                                         Case{"qwen3_qk_norm", Architecture::qwen3, false, false}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace colonnade
