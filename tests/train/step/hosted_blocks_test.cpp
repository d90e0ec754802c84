// Blocks whose weights and gradients are in host memory: every step has the bits of one with all of them on the device, on
// each device, for whole models, adapters and frozen layers, with and without optimizer state in host memory.

#include "train/step/hosted_blocks.h"

#include <gtest/gtest.h>

#include "tests/support/file_test.h"
#include "tests/support/tiny_lora.h"
#include "tests/support/tiny_model.h"
#include "train/folders/checkpoint.h"

namespace colonnade {
namespace {

TEST(SpreadBlocks, AreEvenlyApart) {
    EXPECT_EQ(spread_blocks(0, 4), std::vector<int64_t>());
    EXPECT_EQ(spread_blocks(2, 4), (std::vector<int64_t>{1, 3}));
    EXPECT_EQ(spread_blocks(3, 4), (std::vector<int64_t>{1, 2, 3}));
    EXPECT_EQ(spread_blocks(1 << 30, 3), (std::vector<int64_t>{0, 1, 2}));
    for (int64_t blocks = 1; blocks < 40; ++blocks)
        for (int64_t count = 0; count <= blocks; ++count) {
            const std::vector<int64_t> chosen = spread_blocks(count, blocks);
            ASSERT_EQ(std::ssize(chosen), count);
            for (size_t i = 1; i < chosen.size(); ++i) {
                ASSERT_GE(chosen[i] - chosen[i - 1], blocks / count);
                ASSERT_LE(chosen[i] - chosen[i - 1], (blocks + count - 1) / count);
            }
        }
}

TEST(PlacedArray, HasEveryNumberInOnePlace) {
    Arena device(Device::cpu, 1 << 16), host(Device::cpu, 1 << 16);
    for (const std::vector<Range>& hosted :
         {std::vector<Range>{}, {{0, 64}}, {{64, 128}, {128, 200}}, {{0, 10}, {90, 300}}, {{0, 300}}}) {
        const PlacedArray array = PlacedArray::lay_out(device, host, "numbers", DType::f32, 300, hosted);
        for (int64_t i = 0; i < 300; ++i) *array.slice(i, i + 1).as<float>() = static_cast<float>(i);
        int64_t next = 0, largest = 0;
        for (const PlacedArray::Part& part : array.parts()) {
            EXPECT_EQ(part.numbers.begin, next);
            EXPECT_EQ(part.hosted, std::ranges::find(hosted, part.numbers) != hosted.end());
            if (part.hosted) largest = std::max(largest, part.numbers.size());
            for (; next < part.numbers.end; ++next)
                ASSERT_EQ(part.values.as<float>()[next - part.numbers.begin], static_cast<float>(next));
        }
        EXPECT_EQ(next, 300);
        EXPECT_EQ(array.largest_hosted(), largest);
        EXPECT_EQ(array.has_hosted(), largest > 0);
    }
}

/// Which blocks, and which share of the optimizer's state, are in host memory.
struct Hosted {
    int64_t blocks;
    double optimizer;
};

class HostedBlocksTest : public FileTest, public testing::WithParamInterface<DType> {
  protected:
    static constexpr int64_t layers = 5;

    void SetUp() override {
        FileTest::SetUp();
        if (GetParam() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    ModelConfig model() const {
        ModelConfig config =
            GetParam() == DType::bf16 ? small_config(Architecture::qwen3) : tiny_config(Architecture::qwen3);
        config.num_hidden_layers = layers;
        config.windows.assign(layers, 0);
        config.windows[1] = 5;
        return config;
    }
    LearnerOptions options(const Hosted& hosted) const {
        LearnerOptions o = tiny_options(GetParam(), 1, 32, {});
        o.offloaded_weights = hosted.blocks;
        o.offloaded_optimizer = hosted.optimizer;
        o.hosted_piece = 192;
        return o;
    }
    static Batch batch_of(const Learner& learner, uint64_t seed) {
        const Sample sample = random_sample(seed, 3, {11, 7}, learner.config().vocab_size);
        return make_batch({{&sample}});
    }
    /// Steps of three micro-steps, with a forward pass between steps; returns losses and norms.
    static std::vector<double> train(Learner& learner, int64_t first, int64_t last) {
        const Context ctx = learner.context({.deterministic = true});
        std::vector<double> numbers;
        for (int64_t step = first; step < last; ++step) {
            learner.begin_step();
            for (int64_t micro = 0; micro < 3; ++micro) {
                const Batch batch = batch_of(learner, static_cast<uint64_t>(10 * step + micro));
                learner.accumulate(ctx, batch, {.total = 3 * batch.target_weight, .last = micro == 2});
            }
            EXPECT_TRUE(learner.is_finite(ctx));
            learner.update(ctx, {.weight_decay = 0.1}, 1e-2, 0.1);
            const StepResult result = learner.result();
            numbers.insert(numbers.end(), {result.loss.nll, result.gradient_norm, result.clip_factor});
            numbers.push_back(learner.evaluate(ctx, batch_of(learner, 7)).nll);
        }
        return numbers;
    }
    void expect_equal_bits(const LearnerOptions& with, const std::function<void(Learner&)>& fill) {
        std::optional<std::vector<double>> expected;
        std::vector<std::vector<double>> state;
        uint64_t checksum = 0;
        for (const Hosted& hosted : {Hosted{0, 0}, {1, 0}, {2, 0.35}, {layers - 1, 0}, {layers, 1}}) {
            LearnerOptions o = with;
            o.offloaded_weights = hosted.blocks;
            o.offloaded_optimizer = hosted.optimizer;
            Learner learner(model_, o);
            fill(learner);
            const std::vector<double> numbers = train(learner, 0, 8);
            if (!expected) {
                expected = numbers;
                state = state_of(learner);
                checksum = learner.weights_checksum();
                continue;
            }
            EXPECT_EQ(numbers, *expected) << hosted.blocks;
            EXPECT_TRUE(state_of(learner) == state) << hosted.blocks;
            EXPECT_EQ(learner.weights_checksum(), checksum) << hosted.blocks;
        }
    }

    const ModelConfig model_ = model();
};

TEST_P(HostedBlocksTest, GiveTheSameBits) {
    expect_equal_bits(options({0, 0}), [](Learner& learner) { randomize(learner, 1); });
}

TEST_P(HostedBlocksTest, GiveTheSameBitsIfBlocksAreRecomputed) {
    LearnerOptions o = options({0, 0});
    o.recompute = Recompute::block;
    o.offloaded_activations = 2;
    expect_equal_bits(o, [](Learner& learner) { randomize(learner, 1); });
}

void fill_both(Learner& learner) {
    const Initialization random{.seed = 5, .range = 0.1};
    learner.fill_base([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
    learner.fill_weights([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
}

TEST_P(HostedBlocksTest, GiveTheSameBitsToAdapters) {
    LearnerOptions o = options({0, 0});
    o.lora = LoraSettings{.rank = 4, .alpha = 8, .dropout = 0.1, .targets = {"q_proj", "v_proj", "down_proj"}};
    expect_equal_bits(o, fill_both);
}

// Codes and scales arrive as weights do. Products take some of them as they are.
TEST_P(HostedBlocksTest, GiveTheSameBitsWithABaseInFewerBits) {
    LearnerOptions o = options({0, 0});
    o.lora = lora_of({"q_proj", "down_proj"});
    for (const auto& [code, fp8] :
         {std::pair(WeightCode::nf4, false), {WeightCode::fp8, false}, {WeightCode::fp8, true}}) {
        SCOPED_TRACE(fmt::format("{} {}", name_of(code), fp8));
        if (fp8 && o.gpu && !why_no_fp8_products(o.gpu->compute_capability()).empty()) continue;
        o.base_code = code;
        o.fp8 = fp8;
        expect_equal_bits(o, fill_both);
    }
}

// The last two blocks, and one matrix of all: a block has a frozen part, a trained one, or both.
TEST_P(HostedBlocksTest, GiveTheSameBitsToAPartOfTheModel) {
    LearnerOptions o = options({0, 0});
    o.freeze = FreezeSettings{.layers = 2, .modules = {"mlp", "input_layernorm"}};
    expect_equal_bits(o, fill_both);
    o.freeze = FreezeSettings{.patterns = {".*down_proj"}};
    expect_equal_bits(o, fill_both);
}

// Between the plans of the device and of the host moves what the blocks have, but for the slots.
TEST_P(HostedBlocksTest, ArePlanned) {
    const Device device = GetParam() == DType::bf16 ? Device::cuda : Device::cpu;
    const auto groups = [&](LearnerOptions o, int64_t blocks) {
        std::map<std::string, size_t> bytes;
        o.offloaded_weights = blocks;
        for (const Arena& plan : {Learner::plan(model_, o, device), Learner::host_plan(model_, o, device)})
            for (const auto& [group, size] : plan.groups()) bytes[group] += size;
        return bytes;
    };
    LearnerOptions narrow = options({0, 0});
    narrow.lora = lora_of();
    narrow.base_code = WeightCode::nf4;
    EXPECT_NEAR(static_cast<double>(groups(narrow, layers).at("frozen weights") +
                                    groups(narrow, layers).at("frozen weights (host)")),
                static_cast<double>(groups(narrow, 0).at("frozen weights")), 4 * Arena::alignment);
    const std::map<std::string, size_t> none = groups(options({0, 0}), 0), some = groups(options({0, 0}), 3),
                                        all = groups(options({0, 0}), layers);
    EXPECT_FALSE(none.contains("weights (host)"));
    for (const auto& hosted : {some, all})
        for (const char* what : {"weights", "gradients"})
            EXPECT_NEAR(static_cast<double>(hosted.at(what) + hosted.at(std::string(what) + " (host)")),
                        static_cast<double>(none.at(what)), 2 * Arena::alignment);
    EXPECT_LT(all.at("gradients"), some.at("gradients"));
    EXPECT_EQ(all.at("slots of blocks"), some.at("slots of blocks"));
}

TEST_P(HostedBlocksTest, ResumeWithAnotherNumberOfThem) {
    Learner unbroken(model_, options({3, 0.5}));
    randomize(unbroken, 1);
    train(unbroken, 0, 3);
    const std::string folder = path("checkpoint-3");
    save_checkpoint(folder, unbroken, {.step = 3, .since_log = {}, .data_key = "key", .config_yaml = "seed: 42\n"});
    const std::vector<double> expected = train(unbroken, 3, 6);
    for (const Hosted& hosted : {Hosted{0, 0}, {2, 1}, {layers, 0}}) {
        Learner resumed(model_, options(hosted));
        randomize(resumed, 2);
        train(resumed, 0, 1);  // its slots have weights that are no longer true
        EXPECT_EQ(load_checkpoint(folder, resumed).step, 3);
        EXPECT_EQ(train(resumed, 3, 6), expected) << hosted.blocks;
        EXPECT_TRUE(state_of(resumed) == state_of(unbroken)) << hosted.blocks;
    }
}

// A step without a micro-step has no gradients, whatever the step before left in host memory.
TEST_P(HostedBlocksTest, HaveNoGradientsWithoutAMicroStep) {
    for (const int64_t blocks : {int64_t{0}, layers}) {
        Learner learner(model_, options({blocks, 0}));
        randomize(learner, 1);
        train(learner, 0, 1);
        learner.begin_step();
        learner.update(learner.context(), {}, 1e-2, 0);
        EXPECT_EQ(learner.result().gradient_norm, 0);
    }
}

TEST_P(HostedBlocksTest, NameWhatIsNotFinite) {
    for (const int64_t blocks : {int64_t{0}, layers}) {
        Learner learner(model_, options({blocks, 0}));
        randomize(learner, 1);
        EXPECT_EQ(learner.first_bad_weight(), "");
        const Parameter& bad = *learner.parameters().named("model.layers.2.mlp.up_proj.weight");
        learner.fill_weights([&](const Parameter& p, const Tensor& into) {
            initialize(p, {.seed = 3, .range = 0.1}, into);
            if (p.name == bad.name)
                dispatch_float(into.dtype, [&]<typename T>() { into.as<T>()[5] = static_cast<T>(NAN); });
        });
        EXPECT_EQ(learner.first_bad_weight(), bad.name);
        const Context ctx = learner.context();
        learner.begin_step();
        learner.accumulate(ctx, batch_of(learner, 1), {.total = 1, .last = true});
        EXPECT_FALSE(learner.is_finite(ctx));
    }
}

TEST_P(HostedBlocksTest, HaveTheFingerprintOfOthers) {
    std::optional<Fingerprint> expected;
    for (const int64_t blocks : {int64_t{0}, int64_t{2}, layers}) {
        Learner learner(model_, options({blocks, 0}));
        randomize(learner, 1);
        const Fingerprint found =
            learner.fingerprint(learner.context({.deterministic = true}), batch_of(learner, 1), 1);
        if (!expected) expected = found;
        EXPECT_EQ(found.loss, expected->loss) << blocks;
        EXPECT_EQ(found.gradients, expected->gradients) << blocks;
    }
}

INSTANTIATE_TEST_SUITE_P(Kinds, HostedBlocksTest, testing::Values(DType::f32, DType::f64, DType::bf16),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

}  // namespace
}  // namespace colonnade
