// A base in fewer bits computes as the same base whose weights were rounded to those numbers in advance: loss, gradients,
// updates and answers have equal bits. On every device.

#include <gtest/gtest.h>

#include "engine/device/device.h"
#include "tests/support/answer_trees.h"
#include "tests/support/expect_error.h"
#include "tests/support/tiny_lora.h"
#include "train/generation/generator.h"

namespace colonnade {
namespace {

/// The values that a matrix in fewer bits has.
std::vector<double> rounded(WeightCode code, const std::vector<double>& values, const Parameter& p) {
    Arena arena(Device::cpu, static_cast<size_t>(p.size()) * 2 + 4096);
    const QuantisedMatrix m = QuantisedMatrix::lay_out(arena, "", code, p.shape[0], p.shape[1]);
    quantise({.out = m, .in = view_of(values)});
    std::vector<double> out(values.size());
    dequantise({}, {.out = Tensor(out.data(), DType::f64, {p.shape[0], p.shape[1]}), .in = m});
    return out;
}

/// A learner with a whole base that holds those values.
std::unique_ptr<Learner> rounded_in_advance(const Learner& learner) {
    LearnerOptions options = learner.options();
    const WeightCode code = *options.base_code;
    options.base_code = {};
    auto whole = std::make_unique<Learner>(learner.config(), options);
    const auto base = tiny_learner(learner.config(), DType::f64, 1, 2);
    whole->fill_base([&](const Parameter& p, const Tensor& into) {
        const double* const from = base->weights().as<double>() + base->parameters().named(p.name)->begin;
        std::vector<double> values(from, from + p.size());
        if (entry_of(p.role).is_projection_weight()) values = rounded(code, values, p);
        dispatch_float(into.dtype, [&]<typename T>() {
            std::transform(values.begin(), values.end(), into.as<T>(), [](double x) { return static_cast<T>(x); });
        });
    });
    randomize(*whole, 5);
    return whole;
}

struct Case {
    Architecture architecture;
    WeightCode code;
    Recompute recompute;
    std::set<std::string> targets;
    Device device;
};

struct QuantisedBase : testing::TestWithParam<Case> {
    void SetUp() override {
        if (GetParam().device == Device::cuda && cuda_devices().empty()) GTEST_SKIP() << "no CUDA device";
    }
    static ModelConfig config() { return small_config(GetParam().architecture, false); }
    static Batch batch() {
        static std::vector<Sample> s;
        const int64_t vocab = config().vocab_size;
        s = {tree(1, 6, {5, 9}, vocab), tree(2, 11, {4, 2}, vocab)};
        return make_batch({{&s[0]}, {&s[1]}});
    }
    std::unique_ptr<Learner> learner(const TinyOptions& options) const {
        const Case& c = GetParam();
        const Batch b = batch();
        return lora_learner(config(), c.device == Device::cuda ? DType::bf16 : DType::f32, lora_of(c.targets), b.packs,
                            b.length, options, c.code);
    }
};

TEST_P(QuantisedBase, TrainsWithTheBitsOfRoundedWeights) {
    // The base is the reference, too.
    const auto narrow =
        learner({.recompute = GetParam().recompute, .objective = sigmoid_objective(), .reference = Reference::base});
    const auto whole = rounded_in_advance(*narrow);
    EXPECT_LT(narrow->arena().bytes(), whole->arena().bytes() * 9 / 10);
    for (int step = 0; step < 3; ++step) {
        EXPECT_EQ(gradients_of(*narrow, batch()), gradients_of(*whole, batch())) << step;
        EXPECT_EQ(narrow->loss().mean(), whole->loss().mean());
        for (Learner* l : {narrow.get(), whole.get()}) {
            l->update(l->context(), {}, 1e-2, 1);
            l->result();
        }
    }
    EXPECT_EQ(weights_of(*narrow), weights_of(*whole));
}

TEST_P(QuantisedBase, AnswersAsRoundedWeightsDo) {
    const auto narrow = learner({});
    const auto whole = rounded_in_advance(*narrow);
    std::vector<std::vector<int32_t>> answers;
    for (const Learner* l : {narrow.get(), whole.get()}) {
        GeneratorOptions options{.max_length = 40, .batch = 2, .gpu = l->options().gpu};
        options.lora = l->options().lora;
        Generator generator(l->config(), l->model().weights(), options);
        const std::vector<int32_t> prompt = {3, 1, 4, 1, 5, 9, 2, 6};
        const Request requests[] = {
            {.prompt = prompt, .options = {.max_new_tokens = 20}},
            {.prompt = {prompt.begin(), prompt.begin() + 3}, .options = {.max_new_tokens = 20}}};
        for (const Answer& answer : generator.answer(l->context(), requests)) answers.push_back(answer.tokens);
    }
    ASSERT_EQ(answers.size(), 4u);
    EXPECT_EQ(answers[0], answers[2]);
    EXPECT_EQ(answers[1], answers[3]);
}

std::vector<Case> cases() {
    std::vector<Case> all;
    for (const Device device : {Device::cpu, Device::cuda})
        for (const WeightCode code : {WeightCode::nf4, WeightCode::fp8}) {
            all.push_back({Architecture::llama, code, Recompute::none, {}, device});
            all.push_back({Architecture::qwen2, code, Recompute::block, {"q_proj", "v_proj"}, device});
            all.push_back({Architecture::qwen3, code, Recompute::selective, {"down_proj"}, device});
        }
    return all;
}
std::string name_of_case(const testing::TestParamInfo<Case>& info) {
    const Case& c = info.param;
    return fmt::format("{}_{}_{}_{}", name_of(c.device), name_of(c.code), info.index, c.targets.size());
}
INSTANTIATE_TEST_SUITE_P(Cases, QuantisedBase, testing::ValuesIn(cases()), name_of_case);

// 8 billion parameters: 16 GB in bf16.
TEST(QuantisedPlan, AnEightBillionModelFits) {
    ModelConfig c = tiny_config(Architecture::llama, false);
    c.hidden_size = 4096, c.intermediate_size = 14336, c.num_hidden_layers = 32, c.vocab_size = 128256;
    c.num_attention_heads = 32, c.num_key_value_heads = 8, c.head_dim = 128, c.windows = {};
    LearnerOptions options{
        .max_length = 2048, .head_chunk = 512, .recompute = Recompute::block, .lora = lora_of({}, 16)};
    const auto bytes = [&] { return static_cast<double>(Learner::plan(c, options, Device::cuda).bytes()) / (1 << 30); };
    const double whole = bytes();
    options.base_code = WeightCode::fp8;
    const double eight = bytes();
    options.base_code = WeightCode::nf4;
    const double four = bytes();
    constexpr double gib_of_projections = 13.0;  // 6.98e9 weights of 2 bytes
    EXPECT_NEAR(whole - eight, gib_of_projections / 2, 0.3);
    EXPECT_NEAR(whole - four, gib_of_projections * (1 - 4.127 / 16), 0.3);
    EXPECT_LT(four, 12.0 * 1e9 / (1 << 30)) << "an 8B base in 4 bits on a GPU of 12 GB";
}

}  // namespace
}  // namespace colonnade
