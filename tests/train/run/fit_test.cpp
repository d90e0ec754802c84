// The settings that fit: among all combinations, by brute force, none that fits is predicted to be faster; what is given is
// kept; what the host has no memory for is not chosen.

#include "train/run/find_fit.h"

#include <gtest/gtest.h>

namespace colonnade {
namespace {

constexpr size_t plenty = size_t{1} << 50;

ModelConfig model() {
    return model_of({.hidden_size = 1024,
                     .intermediate_size = 2816,
                     .num_hidden_layers = 10,
                     .num_attention_heads = 8,
                     .num_key_value_heads = 8,
                     .head_dim = 128,
                     .vocab_size = 32000},
                    "test");
}

/// A run of full training on a GPU, four packs in a micro-step.
class Fitting : public testing::Test {
  protected:
    Fitting() {
        config_.per_device_train_batch_size = config_.per_device_eval_batch_size = 4;
        config_.head_chunk = 1024;
        config_.packing_length = config_.max_length = 2048;
        settle_device(config_, Device::cuda);
    }
    FittedConfig fitted(const MemoryRoom& room, const std::set<std::string>& given = {}) const {
        return fit_memory(config_, given, subject_, room);
    }
    size_t bytes() const { return memory_need(subject_, config_).device; }

    const ModelConfig model_ = model();
    Config config_;
    FitSubject subject_{.model = model_,
                        .device = Device::cuda,
                        .of_pack = {.tokens = 2048, .targets = 2048, .pairs = 10 * 2048 * 200},
                        .rates = gpu_rates("NVIDIA H200")};
};

TEST_F(Fitting, NoCombinationThatFitsIsFaster) {
    struct Combination {
        MemoryNeed need;
        double seconds;
    };
    std::vector<Combination> all;
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block})
        for (const int64_t packs : {4, 2, 1})
            for (const int64_t blocks : {0, 2, 4, 6, 8})
                for (const int64_t hosted : {0, 2, 5, 7, 10})
                    for (const int64_t chunk : {1024, 256})
                        for (int share = 0; share <= 20; ++share) {
                            Config c = config_;
                            c.gradient_checkpointing = recompute;
                            c.per_device_train_batch_size = c.per_device_eval_batch_size = packs;
                            c.gradient_accumulation_steps = 4 / packs;
                            c.offload_activations.count = blocks;
                            c.offload_weights.count = hosted;
                            c.head_chunk = chunk;
                            c.offload_optimizer.value = share / 20.0;
                            all.push_back({memory_need(subject_, c), subject_.time(c).total()});
                        }
    const size_t whole = bytes();
    const size_t least =
        std::ranges::min_element(all, {}, [](const Combination& c) { return c.need.device; })->need.device;
    ASSERT_LT(2 * least, whole);
    std::set<std::string> chosen;
    for (const size_t host : {plenty, size_t{1} << 30, size_t{0}})
        for (int i = 0; i <= 16; ++i) {
            const MemoryRoom room{.device = least - 1 + (whole - least + 1) * static_cast<size_t>(i) / 16,
                                  .host = host};
            double fastest = INFINITY;
            for (const Combination& c : all)
                if (c.need.within(room)) fastest = std::min(fastest, c.seconds);
            const FittedConfig found = fitted(room);
            EXPECT_EQ(found.fits, std::isfinite(fastest)) << i;
            const MemoryNeed need = memory_need(subject_, found.config);
            EXPECT_EQ(need.device, found.need.device);
            EXPECT_EQ(need.host, found.need.host);
            EXPECT_EQ(found.config.per_device_train_batch_size * found.config.gradient_accumulation_steps, 4);
            for (std::string& setting : fitted_settings(config_, found.config)) chosen.insert(std::move(setting));
            if (!found.fits) continue;
            EXPECT_TRUE(need.within(room));
            EXPECT_DOUBLE_EQ(found.seconds, fastest);
            EXPECT_DOUBLE_EQ(subject_.time(found.config).total(), fastest);
        }
    EXPECT_EQ(resolved_yaml(fitted({whole, 0}).config), resolved_yaml(config_));
    EXPECT_GE(chosen.size(), 8u);  // every option has a part in it
    for (const char* key : {"gradient_checkpointing=", "per_device_train_batch_size=", "offload_activations=",
                            "offload_weights=", "head_chunk=", "offload_optimizer="})
        EXPECT_TRUE(std::ranges::any_of(chosen, [&](const std::string& s) { return s.starts_with(key); })) << key;
}

TEST_F(Fitting, NothingIsChangedThatIsGiven) {
    const MemoryRoom room{.device = bytes() / 2, .host = plenty};
    const std::vector<std::pair<std::string, std::string>> keys = {
        {"gradient_checkpointing", "gradient_checkpointing="},
        {"gradient_accumulation_steps", "per_device_train_batch_size="},
        {"offload_activations", "offload_activations="},
        {"offload_weights", "offload_weights="},
        {"head_chunk", "head_chunk="},
        {"offload_optimizer", "offload_optimizer="}};
    std::set<std::string> all;
    for (const auto& [given, setting] : keys) {
        all.insert(given);
        for (const std::set<std::string>& set : {std::set<std::string>{given}, all})
            for (const std::string& changed : fitted_settings(config_, fitted(room, set).config))
                for (const auto& [other, prefix] : keys)
                    EXPECT_FALSE(set.contains(other) && changed.starts_with(prefix)) << changed;
    }
    const FittedConfig kept = fitted(room, all);
    EXPECT_FALSE(kept.fits);
    EXPECT_EQ(fitted_settings(config_, kept.config), std::vector<std::string>());
    // A batch of evaluation keeps its size, and the memory that it needs.
    const FittedConfig evaluated = fitted({bytes() * 2 / 3, plenty}, {"per_device_eval_batch_size"});
    EXPECT_EQ(evaluated.config.per_device_eval_batch_size, 4);
}

TEST_F(Fitting, TheHostsMemoryBoundsWhatIsOffloaded) {
    // All settings but the optimizer's: only its state can leave the device.
    const std::set<std::string> others = {"gradient_checkpointing", "gradient_accumulation_steps",
                                          "offload_activations", "offload_weights", "head_chunk"};
    Config half = config_;
    half.offload_optimizer.value = 0.5;
    const MemoryNeed need = memory_need(subject_, half);
    const FittedConfig found = fitted({need.device, need.host}, others);
    EXPECT_TRUE(found.fits);
    EXPECT_EQ(found.config.offload_optimizer, Share{0.5});
    const FittedConfig less = fitted({need.device, need.host - 1}, others);
    EXPECT_FALSE(less.fits);  // what needs the least of the device among those that the host has memory for
    EXPECT_EQ(less.config.offload_optimizer, Share{0.45});
    EXPECT_EQ(fitted({need.device, 0}, others).config.offload_optimizer, Share{0});
}

TEST_F(Fitting, RanksOfOneMachineShardTheOptimizer) {
    const std::set<std::string> others = {
        "gradient_checkpointing", "gradient_accumulation_steps", "offload_activations", "offload_weights", "head_chunk",
        "offload_optimizer"};
    subject_.ranks = subject_.local_ranks = 4;
    Config sharded = config_;
    sharded.zero_stage = 1;
    const MemoryRoom room{.device = memory_need(subject_, sharded).device, .host = 0};
    ASSERT_LT(room.device, bytes());
    EXPECT_EQ(resolved_yaml(fitted(room, others).config), resolved_yaml(sharded));
    EXPECT_TRUE(fitted(room, others).fits);
    subject_.local_ranks = 2;  // two machines, which may have no folder in common
    EXPECT_FALSE(fitted(room, others).fits);
    subject_.local_ranks = 4;
    for (const auto& unfit :
         {+[](Config& c) { c.optim = Optim::muon; }, +[](Config& c) { c.export_checkpoints = true; }}) {
        const Config before = config_;
        unfit(config_);
        EXPECT_EQ(fitted({1, 0}, others).config.zero_stage, 0);
        config_ = before;
    }
}

TEST_F(Fitting, WhatDoesNotFitIsWhatNeedsTheLeast) {
    Config least = config_;
    least.gradient_checkpointing = Recompute::block;
    least.per_device_train_batch_size = least.per_device_eval_batch_size = 1;
    least.gradient_accumulation_steps = 4;
    least.offload_activations.count = least.offload_weights.count = BlockCount::all;
    least.head_chunk = 256;
    least.offload_optimizer.value = 1;
    const FittedConfig found = fitted({1, plenty});
    EXPECT_FALSE(found.fits);
    EXPECT_EQ(found.need.device, memory_need(subject_, least).device);
    EXPECT_LE(found.seconds, subject_.time(least).total());
    EXPECT_GT(found.config.gradient_accumulation_steps, 1);
    subject_.can_split = false;  // random numbers depend on the places of packs
    EXPECT_EQ(fitted({1, plenty}).config.gradient_accumulation_steps, 1);
}

// As far as they can be chosen now, and if they fit.
TEST_F(Fitting, WhatARunHadIsKept) {
    Config then = config_;
    then.gradient_checkpointing = Recompute::block;
    then.per_device_train_batch_size = then.per_device_eval_batch_size = 2;
    then.gradient_accumulation_steps = 2;
    then.offload_weights.count = BlockCount::all;
    const auto found = [&](size_t device, const std::set<std::string>& given = {}) {
        Config config = config_;
        const FoundFit fit = find_fit(config, given, subject_, MemoryRoom{device, plenty}, then);
        EXPECT_EQ(fit.settings, fitted_settings(config_, config));
        return std::pair(fit.resumed, config);
    };
    const size_t room = memory_need(subject_, then).device;
    EXPECT_TRUE(found(room).first);
    EXPECT_EQ(resolved_yaml(found(room).second), resolved_yaml(then));
    EXPECT_FALSE(found(room - 1).first);
    EXPECT_LT(memory_need(subject_, found(room - 1).second).device, room);
    EXPECT_EQ(found(plenty, {"gradient_accumulation_steps"}).second.gradient_accumulation_steps, 1);
    then.per_device_eval_batch_size = 4;  // a given one was kept then
    EXPECT_EQ(resolved_yaml(found(plenty, {"per_device_eval_batch_size"}).second), resolved_yaml(then));
    then.gradient_accumulation_steps = 4;  // other packs in a step
    EXPECT_EQ(found(plenty).second.gradient_accumulation_steps, 1);
    subject_.ranks = subject_.local_ranks = 2;  // blocks' weights stay on the GPUs of several ranks
    EXPECT_EQ(found(plenty).second.offload_weights, BlockCount());
    EXPECT_EQ(found(plenty).second.gradient_checkpointing, Recompute::block);
}

TEST_F(Fitting, TheCpuHasNoOtherMemory) {
    Config c = Config();
    c.per_device_train_batch_size = c.per_device_eval_batch_size = 2;
    c.packing_length = c.max_length = 512;
    settle_device(c, Device::cpu);
    subject_.device = Device::cpu;
    EXPECT_EQ(fitted_settings(c, fit_memory(c, {}, subject_, {1, plenty}).config),
              (std::vector<std::string>{"gradient_checkpointing=block", "per_device_train_batch_size=1",
                                        "per_device_eval_batch_size=1", "gradient_accumulation_steps=2"}));
}

}  // namespace
}  // namespace colonnade
