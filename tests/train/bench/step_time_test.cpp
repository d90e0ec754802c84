// Predicted times beside measured ones of docs/benchmarks.md, docs/learning.md and docs/lora.md; and what each setting costs.

#include "train/run/step_time.h"

#include <gtest/gtest.h>

#include "train/bench/model_shapes.h"

namespace colonnade {
namespace {

const GpuRates h200 = gpu_rates("NVIDIA H200");

/// Rows full of documents of log-normal length with this mean and sigma 0.7 (train/bench/step_workload.h); every token is a
/// target.
StepAmounts of_documents(const ModelConfig& m, double tokens, double mean) {
    const double square = mean * mean * std::exp(0.7 * 0.7);
    return {.tokens = tokens,
            .targets = tokens,
            .pairs = tokens / mean * (square + mean) / 2 * static_cast<double>(m.num_hidden_layers)};
}

ModelConfig model_14b() {
    return model_of({.hidden_size = 5120,
                     .intermediate_size = 13824,
                     .num_hidden_layers = 48,
                     .num_attention_heads = 40,
                     .num_key_value_heads = 8,
                     .head_dim = 128,
                     .vocab_size = 152064,
                     .tie_word_embeddings = true},
                    "test");
}

void expect_seconds(double measured, const StepTime& predicted) {
    EXPECT_NEAR(predicted.total(), measured, 0.06 * measured)
        << predicted.compute << " + " << predicted.optimizer_transfer << " + " << predicted.activation_transfer;
}

TEST(StepTime, IsThatOfMeasuredSteps) {
    const ModelConfig small = model_shape("llama3.2-1b"), seven = model_shape("qwen2.5-7b"), fourteen = model_14b();
    expect_seconds(0.216, predict_step(small, {.max_length = 16384, .head_chunk = 4096}, 1,
                                       of_documents(small, 16384, 400), h200));

    LearnerOptions options{
        .max_length = 8192, .head_chunk = 4096, .moments = DType::bf16, .recompute = Recompute::selective};
    expect_seconds(4.63, predict_step(seven, options, 8, of_documents(seven, 65536, 400), h200));
    options.offloaded_optimizer = 1;
    expect_seconds(5.53, predict_step(seven, options, 8, of_documents(seven, 65536, 400), h200));
    options.offloaded_optimizer = 0.78;
    expect_seconds(10.38, predict_step(fourteen, options, 8, of_documents(fourteen, 65536, 400), h200));
    options.offloaded_optimizer = 0.9;
    expect_seconds(10.63, predict_step(fourteen, options, 8, of_documents(fourteen, 65536, 400), h200));

    // Blocks in host memory, in micro-steps of two rows.
    options = {.max_packs = 2,
               .max_length = 8192,
               .head_chunk = 4096,
               .moments = DType::bf16,
               .recompute = Recompute::selective};
    for (const auto& [blocks, seconds] : {std::pair(0, 4.51), {14, 4.87}, {28, 5.50}}) {
        options.offloaded_weights = blocks;
        expect_seconds(seconds, predict_step(seven, options, 4, of_documents(seven, 65536, 400), h200));
    }
    options.offloaded_optimizer = 1;
    expect_seconds(6.46, predict_step(seven, options, 4, of_documents(seven, 65536, 400), h200));

    // Products in e4m3.
    options = {.max_packs = 2,
               .max_length = 8192,
               .head_chunk = 4096,
               .moments = DType::bf16,
               .fp8 = true,
               .recompute = Recompute::selective};
    expect_seconds(3.85, predict_step(seven, options, 4, of_documents(seven, 65536, 400), h200));
    options.max_packs = 1;
    options.moments = DType::f32;
    const ModelConfig three = model_shape("qwen2.5-3b");
    expect_seconds(1.93, predict_step(three, options, 8, of_documents(three, 65536, 400), h200));

    // One document in each of 32 rows, four times.
    const ModelConfig qwen = model_shape("qwen2.5-1.5b");
    expect_seconds(
        2.104, predict_step(qwen, {.max_packs = 32, .max_length = 1024, .head_chunk = 4096, .moments = DType::bf16}, 4,
                            {.tokens = 131072, .targets = 131072, .pairs = 128 * causal_pairs(0, 1024, 0) * 28}, h200));

    // 24 documents of 16384 tokens in a row.
    const ModelConfig llama = model_shape("llama2-7b");
    const std::set<std::string> all(lora_modules().begin(), lora_modules().end());
    const double layers = static_cast<double>(llama.num_hidden_layers);
    expect_seconds(
        40.4,
        predict_step(llama,
                     {.max_length = 393216,
                      .head_chunk = 4096,
                      .recompute = Recompute::block,
                      .offloaded_activations = 28,
                      .lora = LoraSettings{.rank = 16, .alpha = 32, .targets = all}},
                     1, {.tokens = 393216, .targets = 393216, .pairs = 24 * causal_pairs(0, 16384, 0) * layers}, h200));

    // Two documents of 4096 tokens.
    const ModelConfig llama3 = model_shape("llama3.1-8b");
    expect_seconds(
        0.495,
        predict_step(llama3,
                     {.max_packs = 2,
                      .max_length = 4096,
                      .head_chunk = 4096,
                      .lora = LoraSettings{.rank = 16, .alpha = 32, .targets = all}},
                     1, {.tokens = 8192, .targets = 8192, .pairs = 2 * causal_pairs(0, 4096, 0) * layers}, h200));
}

TEST(StepTime, CausalPairsAreThoseOfEachToken) {
    for (const int64_t begin : {0, 3, 9})
        for (const int64_t end : {9, 12, 40})
            for (const int64_t window : {0, 1, 7, 11, 100}) {
                int64_t pairs = 0;
                for (int64_t i = begin; i < end; ++i) pairs += window > 0 ? std::min(i + 1, window) : i + 1;
                EXPECT_EQ(causal_pairs(begin, end, window), pairs) << begin << ' ' << end << ' ' << window;
            }
}

TEST(StepTime, SettingsCostWhatTheyMoveOrRepeat) {
    const ModelConfig m = model_shape("qwen2.5-3b");
    const LearnerOptions plain{.max_length = 4096, .head_chunk = 4096};
    const StepAmounts amounts = of_documents(m, 8 * 4096, 400);
    const auto with = [&](const auto& change, int64_t micro_steps = 8) {
        LearnerOptions options = plain;
        change(options);
        return predict_step(m, options, micro_steps, amounts, h200);
    };
    const auto nothing = [](LearnerOptions&) {};
    const double base = with(nothing).total();
    // Fewer tokens at a time: gradients are read and written once more for each micro-step.
    const double parameters = static_cast<double>(ParameterList(m).count());
    EXPECT_NEAR(with(nothing, 16).total() - base, 8 * 8 * parameters / (0.8 * h200.memory), 1e-9);
    // A second forward pass of all but the down projections: at most a third of the step.
    const StepTime block = with([](LearnerOptions& o) { o.recompute = Recompute::block; });
    EXPECT_NEAR(block.total() - base, block.recomputed, 1e-12);
    EXPECT_GT(block.recomputed, 0.15 * base);
    EXPECT_LT(block.recomputed, 0.34 * base);
    const StepTime selective = with([](LearnerOptions& o) { o.recompute = Recompute::selective; });
    EXPECT_GT(selective.recomputed, 0);
    EXPECT_LT(selective.recomputed, 0.2 * block.recomputed);
    // 10 bytes of a parameter each way; shards of four ranks bring a quarter.
    const auto hosted = [](LearnerOptions& o) { o.offloaded_optimizer = 0.5; };
    EXPECT_NEAR(with(hosted).optimizer_transfer, 0.5 * 10 * parameters / h200.bus, 1e-9);
    const StepTime shard = with([&](LearnerOptions& o) {
        hosted(o);
        o.sync = {.ranks = 4, .zero_stage = 1};
    });
    EXPECT_NEAR(shard.optimizer_transfer, with(hosted).optimizer_transfer / 4, 1e-9);
    // Inputs of blocks hide behind a block's compute, unless the bus is slow.
    const auto offloaded = [](LearnerOptions& o) { o.offloaded_activations = 1 << 30; };
    EXPECT_EQ(with(offloaded).activation_transfer, 0);
    GpuRates slow = h200;
    slow.bus = 1e9;
    LearnerOptions all = plain;
    offloaded(all);
    const double copies =
        2 * 2 * static_cast<double>((m.num_hidden_layers - 2) * m.hidden_size) * amounts.tokens / slow.bus;
    const StepTime exposed = predict_step(m, all, 8, amounts, slow);
    EXPECT_LT(exposed.activation_transfer, copies);
    EXPECT_GT(exposed.activation_transfer, copies - exposed.compute);
}

// Adapters spare the gradients of weights, frozen layers their part of it.
TEST(StepTime, IsShorterIfLessIsTrained) {
    const ModelConfig m = model_shape("qwen2.5-3b");
    const StepAmounts amounts = of_documents(m, 32768, 400);
    const auto seconds = [&](const LearnerOptions& options) {
        return predict_step(m, options, 1, amounts, h200).total();
    };
    const double full = seconds({.max_length = 32768, .head_chunk = 4096});
    const double adapters =
        seconds({.max_length = 32768, .head_chunk = 4096, .lora = LoraSettings{.rank = 8, .targets = {"q_proj"}}});
    const double top =
        seconds({.max_length = 32768, .head_chunk = 4096, .freeze = FreezeSettings{.layers = 2, .modules = {"all"}}});
    EXPECT_LT(adapters, 0.75 * full);
    EXPECT_LT(top, 0.5 * full);
    EXPECT_GT(top, full / 3);
}

}  // namespace
}  // namespace colonnade
