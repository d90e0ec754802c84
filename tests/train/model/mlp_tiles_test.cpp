// MLPs in tiles of rows: gradients as without tiles but for rounding, the same bits whatever is recomputed, and memory for
// one tile alone.

#include "tests/support/answer_trees.h"
#include "tests/support/step_outcome.h"
#include "tests/support/tiny_lora.h"

namespace colonnade {
namespace {

struct Case {
    const char* name;
    Architecture architecture = Architecture::llama;
    std::optional<LoraSettings> lora{};
    std::optional<FreezeSettings> freeze{};
    bool biases = false;
    bool fp8 = false;
    std::optional<WeightCode> base_code{};
};

LoraSettings dropping(std::set<std::string> targets = {}) {
    LoraSettings lora = lora_of(std::move(targets));
    lora.dropout = 0.3;
    return lora;
}

class MlpTiles : public testing::TestWithParam<std::tuple<Case, DType>> {
  protected:
    void SetUp() override {
        if (!on_gpu()) return;
        if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
        if (const std::string why = why_no_fp8_products(test_gpu()->compute_capability());
            std::get<Case>(GetParam()).fp8 && !why.empty())
            GTEST_SKIP() << why;
    }
    static DType dtype() { return std::get<DType>(GetParam()); }
    static bool on_gpu() { return dtype() == DType::bf16; }
    static constexpr int64_t whole = 1 << 20;

    /// Loss, evaluation and gradients of two micro-steps. The batches have more rows than a tile and other rows than a
    /// multiple; the head reads some of them.
    Outcome outcome(Recompute recompute, int64_t tile) const {
        const Case& c = std::get<Case>(GetParam());
        ModelConfig config = on_gpu() ? small_config(c.architecture, false) : tiny_config(c.architecture, false);
        if (c.biases) config.qkv_bias = config.o_bias = config.mlp_bias = true;
        LearnerOptions options = tiny_options(dtype(), 2, 64, {.recompute = recompute, .fp8 = c.fp8});
        options.lora = c.lora;
        options.base_code = c.base_code;
        options.freeze = c.freeze;
        options.mlp_tile = tile;
        options.seed = 11;
        Learner learner(config, options);
        const auto base = tiny_learner(config, DType::f64, 1, 2);
        learner.fill_base([&](const Parameter& p, const Tensor& into) {
            const double* from = base->weights().as<double>() + base->parameters().named(p.name)->begin;
            dispatch_float(into.dtype, [&]<typename T>() {
                std::transform(from, from + p.size(), into.as<T>(), [](double x) { return static_cast<T>(x); });
            });
        });
        randomize(learner, 5);
        const std::vector<Sample> samples = {tree(1, 6, {15, 9}, config.vocab_size),
                                             tree(2, 11, {14, 12}, config.vocab_size),
                                             tree(3, 2, {17}, config.vocab_size)};
        const std::vector<Batch> batches = {make_batch({{&samples[0]}, {&samples[1]}}), make_batch({{&samples[2]}})};
        Outcome found = run(learner, batches, total_of(learner.objective(), batches));
        found.sums.nll += learner.evaluate(learner.context(), batches[0]).nll;
        return found;
    }
};

TEST_P(MlpTiles, GiveTheSameGradients) {
    const int64_t tile = on_gpu() ? 16 : 7;
    const Outcome expected = outcome(Recompute::none, whole), tiled = outcome(Recompute::none, tile);
    const double bound = dtype() == DType::f64 ? 1e-13 : dtype() == DType::f32 ? 2e-6 : 2e-2;
    EXPECT_TRUE(std::ranges::any_of(tiled.gradients, [](double x) { return x != 0; }));
    EXPECT_LE(distance(tiled.gradients, expected.gradients), bound);
    EXPECT_NEAR(tiled.sums.nll, expected.sums.nll, bound * expected.sums.nll);
    for (const Recompute recompute : {Recompute::selective, Recompute::block}) {
        const Outcome found = outcome(recompute, tile);
        EXPECT_EQ(found.gradients, tiled.gradients) << static_cast<int>(recompute);
        EXPECT_EQ(found.sums.nll, tiled.sums.nll) << static_cast<int>(recompute);
        EXPECT_EQ(outcome(recompute, whole).gradients, expected.gradients) << static_cast<int>(recompute);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, MlpTiles,
    testing::Combine(
        testing::Values(Case{"llama"}, Case{.name = "fp8", .architecture = Architecture::qwen2, .fp8 = true},
                        Case{.name = "fp8_lora", .lora = lora_of(), .fp8 = true, .base_code = WeightCode::nf4},
                        Case{.name = "fp8_codes", .lora = lora_of(), .fp8 = true, .base_code = WeightCode::fp8},
                        Case{.name = "biased", .biases = true}, Case{"lora", Architecture::qwen3, lora_of()},
                        Case{"lora_dropout", Architecture::qwen2, dropping()},
                        Case{"lora_down", Architecture::llama, dropping({"down_proj"})},
                        Case{"upper_layer", Architecture::qwen3, {}, FreezeSettings{.layers = 1, .modules = {"all"}}}),
        testing::Values(DType::f64, DType::f32, DType::bf16)),
    [](const auto& test) {
        return std::string(std::get<0>(test.param).name) + "_" + name_of(std::get<1>(test.param));
    });

// gate_up, SwiGLU, the norm before them and the gradient of SwiGLU: rows of 2 f, f, h and f numbers.
TEST(MlpTilesPlan, HasMemoryForOneTile) {
    const ModelConfig config = small_config(Architecture::llama);
    LearnerOptions options{.max_length = 1024, .recompute = Recompute::block, .mlp_tile = 1024};
    const size_t whole = Learner::plan(config, options, Device::cuda).bytes();
    options.mlp_tile = 256;
    const auto numbers = static_cast<size_t>((1024 - 256) * (4 * config.intermediate_size + config.hidden_size));
    EXPECT_EQ(whole - Learner::plan(config, options, Device::cuda).bytes(), 2 * numbers);
}

// Of a wide MLP, most of what an evaluation has in memory. It shares that memory with training.
TEST(MlpTilesPlan, AnEvaluationOfAsManyTokensFits) {
    ModelConfig config = tiny_config(Architecture::llama);
    config.intermediate_size = 40 * config.hidden_size;
    LearnerOptions options = tiny_options(DType::f32, 1, 256, {.recompute = Recompute::block});
    options.lora = lora_of();
    options.mlp_tile = 16;
    Learner learner(config, options);
    randomize(learner, 1);
    const Sample sample = random_answers(1, 0, {256}, config.vocab_size);
    const Batch batch = make_batch({{&sample}});
    ASSERT_EQ(batch.tokens_total(), 256);
    learner.evaluate(learner.context(), batch);
    gradients_of(learner, batch);
}

}  // namespace
}  // namespace colonnade
