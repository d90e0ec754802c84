// LoRA on whole models: gradients in double against central differences and against the merged model; that the base
// does not change; the memory it takes.

#include "train/model/lora.h"

#include <gtest/gtest.h>

#include "engine/device/device.h"
#include "tests/support/answer_trees.h"
#include "tests/support/forward_pass.h"
#include "tests/support/tiny_lora.h"
#include "train/config/config.h"
#include "train/objectives/reward_objective.h"

namespace colonnade {
namespace {

Batch tiny_batch(const ModelConfig& config) {
    static std::vector<Sample> s;
    s = {random_sample(1, 0, {9}, config.vocab_size), random_sample(2, 3, {4, 2}, config.vocab_size),
         random_sample(3, 0, {11}, config.vocab_size)};
    return make_batch({{&s[0], &s[1]}, {&s[2]}});
}

std::vector<double> hidden_states(const Learner& learner, const Batch& batch, bool adapters) {
    return ForwardPass(learner, batch, adapters).hidden_states();
}

// --- Gradients -------------------------------------------------------------------------------------------------------

struct Case {
    const char* name;
    Architecture architecture;
    std::set<std::string> targets;
    double dropout;
    bool head = false;
    Stage stage = Stage::sft;
};

class LoraGradient : public testing::TestWithParam<Case> {
  protected:
    LoraSettings lora() const {
        LoraSettings lora = lora_of(GetParam().targets);
        lora.dropout = GetParam().dropout;
        lora.head = GetParam().head;
        return lora;
    }
    static ModelConfig config() {
        ModelConfig config = tiny_config(GetParam().architecture, false);
        config.score_head = GetParam().stage == Stage::rm;
        return config;
    }
    static Batch batch() {
        if (GetParam().stage == Stage::sft) return tiny_batch(config());
        const Sample a = tree(1, 6, {5, 9}, config().vocab_size), b = tree(2, 11, {4, 2}, config().vocab_size);
        Batch batch = make_batch({{&a}, {&b}});
        if (GetParam().stage == Stage::dpo) batch.reference = {-20, -40, -9, -11};
        return batch;
    }
    std::unique_ptr<Learner> learner(const Batch& batch) const {
        std::shared_ptr<const Objective> objective;
        if (GetParam().stage == Stage::dpo) objective = sigmoid_objective();
        if (GetParam().stage == Stage::rm) objective = std::make_shared<RewardObjective>(RankingKind::pairwise, 0.05);
        return lora_learner(config(), DType::f64, lora(), batch.packs, batch.length, {.objective = objective});
    }
};

TEST_P(LoraGradient, EqualsCentralDifferences) {
    const Batch batch = this->batch();
    const auto learner = this->learner(batch);
    const auto g = gradients_of(*learner, batch);
    double* w = learner->weights().as<double>();
    // The first micro-step of an update has the same dropout every time.
    const auto loss = [&] {
        learner->begin_step();
        learner->accumulate({}, batch, {.total = learner->objective().total(batch)});
        return learner->loss().mean();
    };
    double largest = 0;
    for (const double x : g) largest = std::max(largest, std::abs(x));
    ASSERT_GT(largest, 0);
    for (const Parameter& p : learner->parameters().all()) {
        for (int64_t i = 0; i < p.size(); i += std::max<int64_t>(1, p.size() / 7)) {
            double& x = w[p.begin + i];
            const double saved = x, h = 1e-5;
            x = saved + h;
            const double up = loss();
            x = saved - h;
            const double slope = (up - loss()) / (2 * h), exact = g[static_cast<size_t>(p.begin + i)];
            x = saved;
            EXPECT_LE(std::abs(slope - exact), 1e-6 * std::max(std::abs(exact), 1e-2 * largest)) << p.name << " " << i;
        }
    }
}

// W' = W + s B A, so that dA = s B^T dW' and dB = s dW' A^T.
TEST_P(LoraGradient, IsTheProjectedGradientOfTheMergedModel) {
    if (GetParam().dropout > 0) GTEST_SKIP() << "dropout has no merged model";
    const Batch batch = this->batch();
    const auto learner = this->learner(batch);
    const auto merged = merged_learner(*learner, DType::f64);
    const auto g = gradients_of(*learner, batch), dw = gradients_of(*merged, batch);
    const auto w = weights_of(*learner);
    EXPECT_NEAR(learner->loss().mean(), merged->loss().mean(), 1e-12 * merged->loss().mean());
    const double s = lora().scale();
    std::vector<double> expected(g.size());
    size_t pairs = 0;
    for (const Parameter& a : learner->parameters().all()) {
        if (!a.is_adapter()) {  // the head, which is trained whole
            const auto from = dw.begin() + merged->parameters().named(a.name)->begin;
            std::copy(from, from + a.size(), expected.begin() + a.begin);
        }
        if (a.role != Role::lora_a) continue;
        const std::string layer = a.name.substr(0, a.name.find("lora_A"));
        const Parameter &b = *learner->parameters().named(layer + "lora_B.weight"),
                        &p = *merged->parameters().named(layer + "weight");
        EXPECT_EQ(&b, learner->parameters().find(Role::lora_b, a.layer, a.adapted));
        EXPECT_EQ(&p, merged->parameters().find(*a.adapted, a.layer));
        const int64_t rank = a.shape[0], in = a.shape[1], out = b.shape[0];
        ASSERT_EQ(p.shape, (std::vector{out, in}));
        ++pairs;
        for (int64_t o = 0; o < out; ++o)
            for (int64_t i = 0; i < in; ++i)
                for (int64_t r = 0; r < rank; ++r) {
                    const auto at_a = static_cast<size_t>(a.begin + r * in + i);
                    const auto at_b = static_cast<size_t>(b.begin + o * rank + r);
                    const double d = dw[static_cast<size_t>(p.begin + o * in + i)];
                    expected[at_a] += s * w[at_b] * d;
                    expected[at_b] += s * w[at_a] * d;
                }
    }
    EXPECT_EQ(pairs, 2 * lora().targets.size());
    EXPECT_LE(distance(g, expected), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(
    Families, LoraGradient,
    testing::Values(Case{"llama_all", Architecture::llama, {}, 0},
                    Case{"llama_q_v", Architecture::llama, {"q_proj", "v_proj"}, 0},
                    Case{"llama_all_dropout", Architecture::llama, {}, 0.3},
                    Case{"mistral_up_down", Architecture::mistral, {"up_proj", "down_proj"}, 0},
                    Case{"qwen2_k_o", Architecture::qwen2, {"k_proj", "o_proj"}, 0},
                    Case{"llama_v_and_head", Architecture::llama, {"v_proj"}, 0, true},
                    Case{"qwen3_all", Architecture::qwen3, {}, 0},
                    Case{"llama_dpo", Architecture::llama, {}, 0, false, Stage::dpo},
                    Case{"llama_dpo_dropout", Architecture::llama, {}, 0.3, false, Stage::dpo},
                    Case{"qwen2_rm", Architecture::qwen2, {}, 0, true, Stage::rm},
                    Case{"qwen3_rm_dropout", Architecture::qwen3, {"q_proj"}, 0.3, true, Stage::rm}),
    [](const auto& test) { return test.param.name; });

// --- On every device -------------------------------------------------------------------------------------------------

class Lora : public testing::TestWithParam<DType> {
  protected:
    void SetUp() override {
        if (GetParam() == DType::bf16 && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static bool on_gpu() { return GetParam() == DType::bf16; }
    static ModelConfig config() {
        return on_gpu() ? small_config(Architecture::qwen2) : tiny_config(Architecture::qwen2);
    }
    static std::unique_ptr<Learner> learner(const LoraSettings& lora, Recompute recompute = Recompute::none) {
        return lora_learner(config(), GetParam(), lora, 2, 160, {.recompute = recompute});
    }
    static void clear(Learner& learner) {
        learner.fill_weights([&](const Tensor& flat) { initialize(learner.parameters(), {.seed = 1}, flat); });
    }
};

TEST_P(Lora, StartsAsTheBase) {
    const Batch batch = tiny_batch(config());
    const auto lora = learner(lora_of());
    const auto base = tiny_learner(config(), GetParam(), 2, 160);
    EXPECT_NE(hidden_states(*lora, batch, true), hidden_states(*base, batch, true));
    clear(*lora);
    EXPECT_EQ(hidden_states(*lora, batch, true), hidden_states(*base, batch, true));
    // B has a gradient from the start, A only when B is not zero.
    const auto g = gradients_of(*lora, batch);
    for (const Parameter& p : lora->parameters().all()) {
        double sum = 0;
        for (int64_t i = 0; i < p.size(); ++i) sum += std::abs(g[static_cast<size_t>(p.begin + i)]);
        EXPECT_EQ(sum > 0, p.name.ends_with("lora_B.weight")) << p.name;
    }
}

TEST_P(Lora, SwitchedOffIsTheBase) {
    const Batch batch = tiny_batch(config());
    const auto lora = learner(lora_of());
    const auto base = tiny_learner(config(), GetParam(), 2, 160);
    EXPECT_EQ(hidden_states(*lora, batch, false), hidden_states(*base, batch, true));
}

TEST_P(Lora, AfterStepsEqualsTheMergedModelAndTheBaseStays) {
    const Batch batch = tiny_batch(config());
    const auto lora = learner(lora_of({}, 8));
    clear(*lora);
    const auto before = numbers_of(*lora, lora->base());
    std::vector<double> losses;
    for (int step = 0; step < 8; ++step) {
        gradients_of(*lora, batch);
        lora->update(lora->context(), {.weight_decay = 0.1}, 1e-2, 1);
        losses.push_back(lora->result().loss.mean());
    }
    EXPECT_LT(losses.back(), 0.9 * losses.front());
    EXPECT_EQ(numbers_of(*lora, lora->base()), before);
    const auto merged = merged_learner(*lora, GetParam());
    const double loss = merged->evaluate(merged->context(), batch).mean();
    EXPECT_NEAR(lora->evaluate(lora->context(), batch).mean(), loss, (on_gpu() ? 1e-2 : 1e-5) * loss);
}

TEST_P(Lora, PackedEqualsSeparate) {
    std::vector<Sample> s;
    for (const int64_t length : {70, 1, 33, 2, 90, 17, 5})
        s.push_back(random_sample(static_cast<uint64_t>(length), 0, {length}, config().vocab_size));
    s.push_back(random_sample(99, 20, {15, 30}, config().vocab_size));
    const Batch packed = make_batch({{&s[0], &s[1], &s[2], &s[3]}, {&s[4], &s[7], &s[6]}}),
                rest = make_batch({{&s[5]}});
    std::vector<Batch> separate;
    for (const Sample& sample : s) separate.push_back(make_batch({{&sample}}));
    const double total = packed.target_weight + rest.target_weight;
    const auto lora = learner(lora_of({}, 8));
    const auto a = gradients_of(*lora, {packed, rest}, total), b = gradients_of(*lora, separate, total);
    if (!on_gpu()) {
        EXPECT_LE(distance(a, b), GetParam() == DType::f64 ? 1e-13 : 2e-6);
        return;
    }
    // They may differ by no more than the error of bf16 itself (packing_equality_test).
    const auto exact = gradients_of(*lora_learner(config(), DType::f64, lora_of({}, 8), 2, 160), {packed, rest}, total);
    EXPECT_LE(distance(a, b), distance(a, exact));
    EXPECT_LE(distance(a, exact), 0.03);
}

TEST_P(Lora, RecomputingGivesTheSameBits) {
    const Batch batch = tiny_batch(config());
    LoraSettings settings = lora_of();
    for (const double dropout : {0.0, 0.3}) {
        settings.dropout = dropout;
        const auto kept = gradients_of(*learner(settings), batch);
        for (const Recompute recompute : {Recompute::selective, Recompute::block})
            EXPECT_EQ(gradients_of(*learner(settings, recompute), batch), kept) << static_cast<int>(recompute);
    }
}

TEST_P(Lora, DropoutIsAFunctionOfTheStep) {
    const Batch batch = tiny_batch(config());
    LoraSettings settings = lora_of();
    settings.dropout = 0.3;
    const auto lora = learner(settings), plain = learner(lora_of());
    const auto first = gradients_of(*lora, batch);
    EXPECT_NE(first, gradients_of(*plain, batch));
    EXPECT_EQ(first, gradients_of(*lora, batch)) << "the same micro-step of the same step";
    const auto two = gradients_of(*lora, {batch, batch}, batch.target_weight);
    bool doubled = true;
    for (size_t i = 0; i < two.size(); ++i) doubled = doubled && two[i] == 2 * first[i];
    EXPECT_FALSE(doubled) << "another micro-step";
    lora->set_updates(1);
    EXPECT_NE(first, gradients_of(*lora, batch)) << "another step";
    lora->set_updates(0);
    EXPECT_EQ(first, gradients_of(*lora, batch)) << "the first again, as after a resume";
    EXPECT_EQ(lora->evaluate(lora->context(), batch).nll, plain->evaluate(plain->context(), batch).nll);
}

INSTANTIATE_TEST_SUITE_P(Devices, Lora, testing::Values(DType::f64, DType::f32, DType::bf16),
                         [](const auto& dtype) { return name_of(dtype.param); });

// --- Parameters ------------------------------------------------------------------------------------------------------

TEST(LoraParameters, ScaleAndSizes) {
    LoraSettings lora = lora_of({}, 16);
    EXPECT_DOUBLE_EQ(lora.scale(), 5.0 / 16);
    lora.rslora = true;
    EXPECT_DOUBLE_EQ(lora.scale(), 5.0 / 4);
    EXPECT_EQ(lora.width(Projection::qkv), 48);
    EXPECT_EQ(lora_of({"q_proj", "v_proj"}, 4).width(Projection::qkv), 8);
    EXPECT_EQ(lora_of({"q_proj", "v_proj"}, 4).width(Projection::o), 0);
    const ModelConfig c = tiny_config(Architecture::llama);
    const ParameterList list = lora_parameters(c, lora);
    const int64_t h = 12, f = 20, q = 16, kv = 8;
    EXPECT_EQ(list.count(), 2 * 16 * ((h + q) + 2 * (h + kv) + (q + h) + 3 * (h + f)));
    EXPECT_EQ(list.named("model.layers.1.mlp.down_proj.lora_A.weight")->shape, (std::vector<int64_t>{16, f}));
    EXPECT_EQ(list.named("model.layers.0.self_attn.k_proj.lora_B.weight")->shape, (std::vector<int64_t>{kv, 16}));
    EXPECT_EQ(list.all().front().name, "model.layers.1.mlp.down_proj.lora_A.weight") << "in the order of backward";
    EXPECT_EQ(list.size() % 64, 0);
}

TEST(LoraParameters, StartUniformAndZero) {
    ModelConfig c = tiny_config(Architecture::llama);
    c.hidden_size = 400;
    const ParameterList list = lora_parameters(c, lora_of({"q_proj"}, 100));
    std::vector<double> flat(static_cast<size_t>(list.size()), 9), again = flat, other = flat;
    const auto fill = [&](std::vector<double>& v, uint64_t seed) {
        initialize(list, {.seed = seed}, Tensor(v.data(), DType::f64, {std::ssize(v)}));
    };
    fill(flat, 3);
    fill(again, 3);
    fill(other, 4);
    EXPECT_EQ(flat, again);
    EXPECT_NE(flat, other);
    const double bound = 1 / std::sqrt(400.0);  // kaiming_uniform_(a=sqrt(5)): sqrt(6 / ((1 + 5) fan_in))
    for (const Parameter& p : list.all()) {
        double mean = 0, square = 0, largest = 0;
        for (int64_t i = 0; i < p.size(); ++i) {
            const double x = flat[static_cast<size_t>(p.begin + i)];
            mean += x, square += x * x, largest = std::max(largest, std::abs(x));
        }
        const auto n = static_cast<double>(p.size());
        if (p.name.ends_with("lora_B.weight")) {
            EXPECT_EQ(largest, 0) << p.name;
            continue;
        }
        EXPECT_LE(largest, bound);
        EXPECT_GT(largest, 0.999 * bound);
        EXPECT_NEAR(mean / n, 0, 4 * bound / std::sqrt(3 * n));
        EXPECT_NEAR(square / n, bound * bound / 3, 0.02 * bound * bound);
    }
}

// The memory plan, number by number: the base takes only its weights.
TEST(LoraMemory, OnlyAdaptersAreTrained) {
    ModelConfig c = small_config(Architecture::llama);
    c.hidden_size = 512, c.intermediate_size = 1024;
    const auto groups = [&](Device device, std::optional<LoraSettings> lora, Recompute recompute) {
        const Arena plan = Learner::plan(
            c, {.max_packs = 1, .max_length = 64, .recompute = recompute, .lora = std::move(lora)}, device);
        return std::map<std::string, size_t>(plan.groups().begin(), plan.groups().end());
    };
    const auto base = static_cast<size_t>(ParameterList(c).size());
    const auto pairs = static_cast<size_t>(lora_parameters(c, lora_of({}, 8)).size());
    auto full = groups(Device::cpu, std::nullopt, Recompute::none),
         lora = groups(Device::cpu, lora_of({}, 8), Recompute::none);
    EXPECT_EQ(lora["frozen weights"], 4 * base);
    EXPECT_EQ(lora["adapters"], 4 * pairs);
    EXPECT_EQ(lora["gradients"], 4 * pairs);
    EXPECT_EQ(lora["optimizer"], 8 * pairs);
    EXPECT_FALSE(lora.contains("weights"));
    // LoRA keeps h of seven adapters per layer and token more than full training.
    EXPECT_EQ(lora["activations"] - full["activations"], 4u * 2 * 64 * 7 * 8);
    auto block = groups(Device::cpu, lora_of({}, 8), Recompute::block),
         block_full = groups(Device::cpu, std::nullopt, Recompute::block);
    EXPECT_EQ(block["activations"] - block_full["activations"], 4u * 64 * (2 * 8 + 6 * 8))
        << "down's are kept per layer";
    EXPECT_LT(pairs, base / 20);
    if (!built_with_cuda()) return;  // only a build with kernels knows their scratch memory
    // The base exists in bf16 only on a GPU; adapters are fp32 in two halves.
    auto gpu = groups(Device::cuda, lora_of({}, 8), Recompute::block);
    EXPECT_EQ(gpu["frozen weights"], 2 * base);
    EXPECT_EQ(gpu["low halves of weights"], 2 * pairs);
    EXPECT_EQ(gpu["adapters"], 2 * pairs);
    EXPECT_EQ(gpu["gradients"], 4 * pairs);
    EXPECT_EQ(gpu["optimizer"], 8 * pairs);
    auto gpu_full = groups(Device::cuda, std::nullopt, Recompute::block);
    EXPECT_EQ(gpu_full["weights"] + gpu_full["low halves of weights"] + gpu_full["gradients"] + gpu_full["optimizer"],
              16 * base);
}

}  // namespace
}  // namespace colonnade
