#pragma once
// Small models and random packed batches for the tests of the train folder.

#include <memory>

#include "data/packing/batch.h"
#include "engine/device/philox.h"
#include "tests/support/test_gpu.h"
#include "train/step/learner.h"

namespace colonnade {

inline ModelConfig tiny_config(Architecture architecture, bool tied = true) {
    ModelConfig c = family_defaults(architecture);
    c.vocab_size = 29;
    c.hidden_size = 12;
    c.intermediate_size = 20;
    c.num_hidden_layers = 2;
    c.num_attention_heads = 4;
    c.num_key_value_heads = 2;
    c.head_dim = architecture == Architecture::qwen3 ? 6 : 4;
    c.tie_word_embeddings = tied;
    c.initializer_range = 0.3;
    c.windows = {0, 0};
    if (architecture == Architecture::mistral) c.windows = {5, 5};
    if (architecture == Architecture::qwen2) c.windows = {0, 4};
    return c;
}

/// The same with sizes that the GPU's kernels take, and weights that leave the logits of usual size.
inline ModelConfig small_config(Architecture architecture, bool tied = true) {
    ModelConfig c = tiny_config(architecture, tied);
    c.vocab_size = 203;
    c.hidden_size = 128;
    c.intermediate_size = 192;
    c.head_dim = architecture == Architecture::qwen3 ? 128 : 64;
    c.initializer_range = 0.08;
    return c;
}

/// Random weights everywhere, norms around 1 and biases too, so that nothing is right by accident. All are bf16's own
/// numbers, so that every dtype and device sees the same.
inline void randomize(Learner& learner, uint64_t seed) {
    learner.fill_weights([&](const Tensor& weights) {
        initialize(learner.config(), learner.parameters(), seed, weights);
        dispatch_float(weights.dtype, [&]<typename T>() {
            T* w = weights.as<T>();
            for (const Parameter& p : learner.parameters().all())
                for (int64_t i = 0; i < p.size(); ++i) {
                    T& x = w[p.begin + i];
                    if (!p.decay)
                        x += static_cast<T>(
                            0.2 * Philox{seed + 1, static_cast<uint64_t>(p.begin)}.normal(static_cast<uint64_t>(i)));
                    x = float_from_bf16(bf16_from_float(static_cast<float>(x)));
                }
        });
    });
}

/// A sample of `stem` + branches tokens; about two in three branch tokens are learned, with weights 1 and 0.5.
inline Sample random_sample(uint64_t seed, int64_t stem, const std::vector<int64_t>& branches, int64_t vocab) {
    Sample s;
    const Philox random{seed, 7};
    uint64_t draw = 0;
    const auto add = [&](int64_t count, bool learn) {
        for (int64_t i = 0; i < count; ++i) {
            s.tokens.push_back(static_cast<int32_t>(random.below(draw++, static_cast<uint64_t>(vocab))));
            s.weights.push_back(learn ? std::array{0.0f, 1.0f, 0.5f}[random.below(draw++, 3)] : 0.0f);
        }
    };
    add(stem, false);
    for (const int64_t length : branches) {
        s.branch_begins.push_back(static_cast<int32_t>(s.tokens.size()));
        add(length, true);
    }
    if (stem == 0) s.weights[0] = 0;
    return s;
}

/// On the CPU in f32 or f64; bf16 means the GPU.
inline std::unique_ptr<Learner> tiny_learner(const ModelConfig& config, DType dtype, int64_t packs, int64_t length,
                                             uint64_t seed = 1, Recompute recompute = Recompute::none,
                                             std::shared_ptr<const Objective> objective = nullptr,
                                             ReferenceForward reference = {}) {
    if (!objective) objective = std::make_shared<LanguageModelObjective>();
    auto learner = std::make_unique<Learner>(config, LearnerOptions{.max_packs = packs,
                                                                    .max_length = length,
                                                                    .head_chunk = 7,
                                                                    .dtype = dtype,
                                                                    .recompute = recompute,
                                                                    .gpu = dtype == DType::bf16 ? test_gpu() : nullptr,
                                                                    .objective = std::move(objective),
                                                                    .reference = std::move(reference)});
    randomize(*learner, seed);
    return learner;
}

/// The numbers of a tensor in host memory.
inline std::vector<double> numbers_of(const Tensor& tensor) {
    std::vector<double> values;
    dispatch_float(tensor.dtype, [&]<typename T>() { values.assign(tensor.as<T>(), tensor.as<T>() + tensor.numel()); });
    return values;
}

/// The numbers of a tensor of the learner, wherever it lives.
inline std::vector<double> numbers_of(const Learner& learner, const Tensor& tensor) {
    return numbers_of(HostCopy::of(learner.options().gpu, tensor).tensor());
}

template <typename T>
std::vector<T> values_of(const Tensor& t) {
    return std::vector<T>(t.as<T>(), t.as<T>() + t.numel());
}

}  // namespace colonnade
