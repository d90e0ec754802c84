// Frozen layers: which parameters a setting trains, and that their gradients are those of training the whole model, to
// the bit, although the backward pass ends early and frozen layers keep no activations.

#include "train/model/freeze.h"

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"
#include "tests/support/tiny_lora.h"

namespace colonnade {
namespace {

std::set<std::string> names_of(const ParameterList& list) {
    std::set<std::string> names;
    for (const Parameter& p : list.all()) names.insert(p.name);
    return names;
}

std::set<std::string> trained_by(const FreezeSettings& settings, bool tied = false) {
    return names_of(split_parameters(tiny_config(Architecture::qwen3, tied), settings).trained);
}

TEST(Freeze, TrainsWhatLlamaFactoryTrains) {
    const std::set<std::string> mlp = {"model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.gate_proj.weight",
                                       "model.layers.1.mlp.up_proj.weight"};
    EXPECT_EQ(trained_by({.layers = 1, .modules = {"mlp"}}), mlp);
    EXPECT_EQ(trained_by({.layers = -1, .modules = {"mlp.down_proj", "input_layernorm"}}),
              (std::set<std::string>{"model.layers.0.mlp.down_proj.weight", "model.layers.0.input_layernorm.weight"}));
    EXPECT_EQ(trained_by({.layers = 0, .extra = {"norm", "lm_head", "embed_tokens"}}),
              (std::set<std::string>{"model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"}));
    const ParameterList all(tiny_config(Architecture::qwen3, false));
    EXPECT_EQ(trained_by({.layers = 2, .modules = {"all"}, .extra = {"norm", "lm_head", "embed_tokens"}}),
              names_of(all));
    EXPECT_EQ(std::ssize(trained_by({.layers = 1, .modules = {"all"}})), 11);  // 7 matrices, 4 norms
}

TEST(Freeze, TrainsWhatPatternsMatch) {
    EXPECT_EQ(trained_by({.patterns = {R"(model\.layers\.[0-9]+\.self_attn\.o_proj)", "^lm_head.weight$"}}),
              (std::set<std::string>{"model.layers.0.self_attn.o_proj.weight", "model.layers.1.self_attn.o_proj.weight",
                                     "lm_head.weight"}));
    EXPECT_EQ(trained_by({.patterns = {".*norm"}}).contains("model.layers.0.self_attn.q_norm.weight"), true);
}

TEST(Freeze, RefusesWhatMatchesNothingOrSplitsAMatrix) {
    const auto refused = [](const FreezeSettings& settings, const std::string& message, bool tied = false) {
        expect_error(Exit::config, message, [&] { trained_by(settings, tied); });
    };
    refused({.layers = 3, .modules = {"all"}}, "freeze_trainable_layers 3: the model has 2 layers");
    refused({.layers = 1, .modules = {"attention"}}, "freeze_trainable_modules 'attention' matches no parameter");
    refused({.extra = {"mlp"}}, "freeze_extra_modules 'mlp' matches no parameter of the model");
    refused({.extra = {"lm_head"}}, "its head is tied to the embedding, embed_tokens", true);
    refused({.patterns = {"layers.0"}}, "unfrozen_parameters 'layers.0' matches no parameter");  // not from the begin
    refused({.patterns = {"model.layers.(0"}}, "unfrozen_parameters 'model.layers.(0': not a regular expression");
    refused({.patterns = {".*q_proj"}},
            "model.layers.1.self_attn.q_proj.weight and model.layers.1.self_attn.k_proj.weight are one matrix here");
}

class FrozenGradients : public testing::TestWithParam<DType> {};

TEST_P(FrozenGradients, AreThoseOfTheWholeModel) {
    const bool gpu = GetParam() == DType::bf16;
    if (gpu && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    const FreezeSettings settings[] = {{.layers = 1, .modules = {"all"}},
                                       {.layers = 1, .modules = {"mlp", "input_layernorm"}},
                                       {.layers = 1, .modules = {"self_attn"}, .extra = {"norm"}},
                                       {.layers = -1, .modules = {"mlp.down_proj"}},
                                       {.extra = {"norm"}},
                                       {.extra = {"embed_tokens"}},
                                       {.layers = 1, .modules = {"self_attn.o_proj"}, .extra = {"lm_head"}}};
    for (const FreezeSettings& freeze : settings)
        for (const Recompute recompute : {Recompute::none, Recompute::block}) {
            const bool tied = !freeze.extra.contains("lm_head");
            const ModelConfig config =
                gpu ? small_config(Architecture::qwen3, tied) : tiny_config(Architecture::qwen3, tied);
            LearnerOptions options = tiny_options(GetParam(), 1, 32, {.recompute = recompute});
            Learner full(config, options);
            randomize(full, 3);
            options.freeze = freeze;
            Learner frozen(config, options);
            const auto weights = weights_of(full);
            const auto put = [&](const Parameter& p, const Tensor& into) {
                const double* from = weights.data() + full.parameters().named(p.name)->begin;
                dispatch_float(into.dtype, [&]<typename T>() {
                    std::transform(from, from + p.size(), into.as<T>(), [](double x) { return static_cast<T>(x); });
                });
            };
            frozen.fill_base(put);
            frozen.fill_weights([&](const Tensor& flat) {
                for (const Parameter& p : frozen.parameters().all()) put(p, slice_of(flat, p));
            });
            const Sample sample = random_sample(1, 3, {11, 7}, config.vocab_size);
            const Batch batch = make_batch({{&sample}});
            const auto of_full = gradients_of(full, {batch, batch}, 2 * batch.target_weight),
                       of_frozen = gradients_of(frozen, {batch, batch}, 2 * batch.target_weight);
            for (const Parameter& p : frozen.parameters().all()) {
                const auto* expected = of_full.data() + full.parameters().named(p.name)->begin;
                EXPECT_TRUE(std::equal(expected, expected + p.size(), of_frozen.data() + p.begin)) << p.name;
                EXPECT_TRUE(std::any_of(expected, expected + p.size(), [](double x) { return x != 0; })) << p.name;
            }
            EXPECT_LT(frozen.arena().bytes(), full.arena().bytes());
            // The update changes the trained part alone, and the whole model is put together from both.
            frozen.update(frozen.context(), {}, 1e-2, 1);
            frozen.result();
            if (GetParam() == DType::f64) continue;
            const HostCopy trained = HostCopy::of(options.gpu, frozen.weights());
            const HostCopy whole = frozen.whole_model(trained.tensor());
            for (const Parameter& p : full.parameters().all()) {
                const float* now = whole.tensor().as<float>() + p.begin;
                const bool same = std::equal(now, now + p.size(), weights.data() + p.begin);
                EXPECT_EQ(same, !frozen.parameters().named(p.name)) << p.name;
            }
        }
}

INSTANTIATE_TEST_SUITE_P(Devices, FrozenGradients, testing::Values(DType::f32, DType::f64, DType::bf16),
                         [](const auto& dtype) { return name_of(dtype.param); });

}  // namespace
}  // namespace colonnade
