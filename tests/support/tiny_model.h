#pragma once
// Small models and random packed batches for the tests of train/.

#include <memory>

#include "data/packing/batch.h"
#include "engine/device/philox.h"
#include "tests/support/flat_sample.h"
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

/// The same with sizes that the kernels of a GPU take, and weights that give logits of usual size.
inline ModelConfig small_config(Architecture architecture, bool tied = true) {
    ModelConfig c = tiny_config(architecture, tied);
    c.vocab_size = 203;
    c.hidden_size = 128;
    c.intermediate_size = 192;
    c.head_dim = architecture == Architecture::qwen3 ? 128 : 64;
    c.initializer_range = 0.08;
    return c;
}

/// Random weights everywhere, also for norms (around 1), biases and both matrices of adapters, so that nothing is right
/// by accident. bf16 can hold all of them, so that every dtype and device sees the same.
inline void randomize(Learner& learner, uint64_t seed) {
    const auto draw = [&](const Parameter& p, uint64_t i) {
        const Philox matrix{seed, p.stream}, vector{seed + 1, static_cast<uint64_t>(p.begin)};
        if (p.decay) return learner.config().initializer_range * matrix.normal(i);
        return (p.init == Init::ones ? 1 : 0) + 0.2 * vector.normal(i);
    };
    learner.fill_weights([&](const Tensor& weights) {
        dispatch_float(weights.dtype, [&]<typename T>() {
            T* w = weights.as<T>();
            for (const Parameter& p : learner.parameters().all())
                for (int64_t i = 0; i < p.size(); ++i) {
                    const auto x = static_cast<float>(draw(p, static_cast<uint64_t>(i)));
                    w[p.begin + i] = float_from_bf16(bf16_from_float(x));
                }
        });
    });
}

/// A sample whose sequences share a stem and go on with answers of these lengths. About two in three tokens of an answer
/// have a loss, of weight 1 or 0.5. With several answers each should beat the later ones.
inline Sample random_sample(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab) {
    FlatSample s{.begins = {}};
    const Philox random{seed, 7};
    uint64_t draw = 0;
    const auto add = [&](int64_t count, bool learn) {
        for (int64_t i = 0; i < count; ++i) {
            s.tokens.push_back(static_cast<int32_t>(random.below(draw++, static_cast<uint64_t>(vocab))));
            s.weights.push_back(learn ? std::array{0.0f, 1.0f, 0.5f}[random.below(draw++, 3)] : 0.0f);
        }
    };
    add(stem, false);
    for (const int64_t length : answers) {
        s.begins.push_back(static_cast<int32_t>(s.tokens.size()));
        add(length, true);
    }
    return sample_of(s);
}

struct TinyOptions {
    Recompute recompute = Recompute::none;
    std::shared_ptr<const Objective> objective{};  ///< null: the language model's
    Reference reference = Reference::batches;
};
inline LearnerOptions tiny_options(DType dtype, int64_t packs, int64_t length, const TinyOptions& options) {
    LearnerOptions result{.max_packs = packs,
                          .max_length = length,
                          .head_chunk = 7,
                          .dtype = dtype,
                          .recompute = options.recompute,
                          .gpu = dtype == DType::bf16 ? test_gpu() : nullptr,
                          .reference = options.reference};
    if (options.objective) result.objective = options.objective;
    return result;
}

/// A learner with random weights: on the CPU in f32 or f64, on the GPU if dtype is bf16.
inline std::unique_ptr<Learner> tiny_learner(const ModelConfig& config, DType dtype, int64_t packs, int64_t length,
                                             const TinyOptions& options = {}) {
    auto learner = std::make_unique<Learner>(config, tiny_options(dtype, packs, length, options));
    randomize(*learner, 1);
    return learner;
}

/// The numbers of a tensor in host memory.
inline std::vector<double> numbers_of(const Tensor& tensor) {
    std::vector<double> values;
    dispatch_float(tensor.dtype, [&]<typename T>() { values.assign(tensor.as<T>(), tensor.as<T>() + tensor.numel()); });
    return values;
}

/// The numbers of a tensor of the learner, on either device.
inline std::vector<double> numbers_of(const Learner& learner, const Tensor& tensor) {
    return numbers_of(HostCopy::of(learner.options().gpu, tensor).tensor());
}

template <typename T>
std::vector<T> values_of(const Tensor& t) {
    return std::vector<T>(t.as<T>(), t.as<T>() + t.numel());
}

}  // namespace colonnade
