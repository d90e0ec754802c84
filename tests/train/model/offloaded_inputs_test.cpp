// Inputs of blocks in host memory: they change no bit of a step, and take exactly as much less of the device's memory as
// they take of the host's.

#include "train/model/offloaded_inputs.h"

#include "tests/support/answer_trees.h"
#include "tests/support/step_outcome.h"
#include "tests/support/tiny_lora.h"

namespace colonnade {
namespace {

constexpr int64_t layers = 6, all = layers;

ModelConfig deep(ModelConfig config) {
    config.num_hidden_layers = layers;
    config.windows.assign(layers, 0);
    config.windows[1] = config.windows[4] = 5;
    return config;
}

/// What is trained.
struct Case {
    const char* name;
    std::optional<LoraSettings> lora{};
    std::optional<FreezeSettings> freeze{};
    std::shared_ptr<const Objective> objective = std::make_shared<LanguageModelObjective>();
    Reference reference = Reference::batches;
    double noise = 0;
};

const std::vector<Case>& cases() {
    static const std::vector<Case> table = [] {
        LoraSettings dropout = lora_of();
        dropout.dropout = 0.3;
        return std::vector<Case>{
            {.name = "full"},
            {.name = "noise", .noise = 5},
            {.name = "lora_dropout", .lora = dropout},
            {.name = "dpo_of_the_base",
             .lora = dropout,
             .objective = sigmoid_objective(),
             .reference = Reference::base},
            {.name = "upper_layers", .freeze = FreezeSettings{.layers = 5, .modules = {"all"}}},
            {.name = "head", .freeze = FreezeSettings{.extra = {"norm"}}},
        };
    }();
    return table;
}

/// The results of three steps of two micro-steps that differ in shape, with an evaluation after each.
struct Results {
    std::vector<double> losses, gradients, weights;
    bool operator==(const Results&) const = default;
};

class Offloaded : public testing::TestWithParam<std::tuple<Case, DType>> {
  protected:
    void SetUp() override {
        if (on_gpu() && !test_gpu()) GTEST_SKIP() << "no CUDA device";
        const int64_t vocab = config_.vocab_size;
        samples_ = {tree(1, 6, {5, 9}, vocab), tree(2, 11, {4, 2}, vocab), tree(3, 2, {7, 8}, vocab),
                    tree(4, 1, {3, 12}, vocab)};
        batches_ = {make_batch({{&samples_[0], &samples_[1]}, {&samples_[2]}}), make_batch({{&samples_[3]}})};
    }
    static bool on_gpu() { return std::get<DType>(GetParam()) == DType::bf16; }

    std::unique_ptr<Learner> learner(Recompute recompute, int64_t offloaded) const {
        const auto& [c, dtype] = GetParam();
        LearnerOptions options =
            tiny_options(dtype, 2, 64, {.recompute = recompute, .objective = c.objective, .reference = c.reference});
        options.offloaded_activations = offloaded;
        options.seed = 11;
        options.lora = c.lora;
        options.freeze = c.freeze;
        options.neftune_noise_alpha = c.noise;
        auto learner = std::make_unique<Learner>(config_, options);
        const auto base = tiny_learner(config_, DType::f64, 1, 2);
        learner->fill_base([&](const Parameter& p, const Tensor& into) {
            const double* from = base->weights().as<double>() + base->parameters().named(p.name)->begin;
            dispatch_float(into.dtype, [&]<typename T>() {
                std::transform(from, from + p.size(), into.as<T>(), [](double x) { return static_cast<T>(x); });
            });
        });
        randomize(*learner, 5);
        return learner;
    }

    Results train(Learner& learner) const {
        const Context ctx = learner.context({.deterministic = true});
        const double total = total_of(learner.objective(), batches_);
        Results results;
        for (int step = 0; step < 3; ++step) {
            learner.begin_step();
            for (const Batch& batch : batches_)
                learner.accumulate(ctx, batch, {.total = total, .last = &batch == &batches_.back()});
            results.losses.push_back(learner.loss().mean());
            const auto gradients = numbers_of(learner, learner.gradients());
            results.gradients.insert(results.gradients.end(), gradients.begin(), gradients.end());
            learner.update(ctx, {}, 1e-2, 1);
            learner.result();
            results.losses.push_back(learner.evaluate(ctx, batches_[0]).mean());
        }
        results.weights = numbers_of(learner, learner.weights());
        return results;
    }

    ModelConfig config_ = deep(on_gpu() ? small_config(Architecture::qwen3) : tiny_config(Architecture::qwen3));
    std::vector<Sample> samples_;
    std::vector<Batch> batches_;
};

TEST_P(Offloaded, GivesTheSameBits) {
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
        const auto kept = learner(recompute, 0);
        const Results expected = train(*kept);
        EXPECT_NE(expected.losses[0], expected.losses[2]) << "nothing was learned";
        for (const int64_t offloaded : {int64_t{1}, int64_t{3}, all}) {
            const auto sent = learner(recompute, offloaded);
            const Results found = train(*sent);
            EXPECT_EQ(found.losses, expected.losses) << offloaded;
            EXPECT_TRUE(found == expected) << offloaded << " blocks, recompute " << static_cast<int>(recompute);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, Offloaded,
                         testing::Combine(testing::ValuesIn(cases()), testing::Values(DType::f32, DType::bf16)),
                         [](const auto& test) {
                             return std::string(std::get<0>(test.param).name) + "_" + name_of(std::get<1>(test.param));
                         });

// --- Memory ----------------------------------------------------------------------------------------------------------

size_t bytes_of_inputs(const ModelConfig& config, int64_t tokens, DType dtype) {
    return static_cast<size_t>(tokens * config.hidden_size) * bytes_of(dtype);
}

TEST(OffloadedPlan, MovesTheInputsOfSoManyBlocks) {
    const ModelConfig config = deep(small_config(Architecture::llama));
    for (const Device device : {Device::cpu, Device::cuda})
        for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block})
            for (const int64_t frozen : {0, 1, 3, 5, 6}) {
                LearnerOptions options{.max_packs = 2, .max_length = 64, .recompute = recompute};
                if (frozen == layers)
                    options.freeze = FreezeSettings{.extra = {"norm"}};
                else if (frozen > 0)
                    options.freeze = FreezeSettings{.layers = layers - frozen, .modules = {"all"}};
                const size_t before = Learner::plan(config, options, device).bytes(),
                             input = bytes_of_inputs(config, 2 * 64, options.dtype_on(device));
                EXPECT_EQ(Learner::host_plan(config, options, device).bytes(), 0u);
                for (const int64_t offloaded : {1, 2, 4, 5, 100}) {
                    options.offloaded_activations = offloaded;
                    const auto moved =
                        static_cast<size_t>(std::min(offloaded, std::max<int64_t>(layers - frozen - 2, 0)));
                    SCOPED_TRACE(fmt::format("{} of the blocks from {} on", offloaded, frozen));
                    EXPECT_EQ(before - Learner::plan(config, options, device).bytes(), moved * input);
                    const Arena host = Learner::host_plan(config, options, device);
                    EXPECT_EQ(host.bytes(), moved * input);
                    if (moved > 0) {
                        EXPECT_EQ(host.groups().at(0).first, "activations (host)");
                    }
                }
            }
}

TEST(OffloadedPlan, NothingWithoutTraining) {
    const ModelConfig config = deep(tiny_config(Architecture::llama));
    LearnerOptions options{.max_length = 64, .training = false};
    const size_t before = Learner::plan(config, options, Device::cpu).bytes();
    options.offloaded_activations = all;
    EXPECT_EQ(Learner::plan(config, options, Device::cpu).bytes(), before);
    EXPECT_EQ(Learner::host_plan(config, options, Device::cpu).bytes(), 0u);
}

TEST(OffloadedPlan, IsWhatALearnerTakes) {
    const ModelConfig config = deep(tiny_config(Architecture::llama));
    LearnerOptions options = tiny_options(DType::f32, 1, 24, {.recompute = Recompute::block});
    options.offloaded_activations = 3;
    Learner learner(config, options);
    randomize(learner, 1);
    const Sample sample = random_answers(1, 4, {20}, config.vocab_size);
    const Batch batch = make_batch({{&sample}});
    gradients_of(learner, batch);
    EXPECT_EQ(learner.host_arena().bytes(), Learner::host_plan(config, options, Device::cpu).bytes());
    EXPECT_GE(learner.host_arena().bytes(), 3 * bytes_of_inputs(config, 24, DType::f32));
}

}  // namespace
}  // namespace colonnade
