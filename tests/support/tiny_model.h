#pragma once
// Learners of small models (train/selftest/random_model.h) for the tests of train/, and what they hold.

#include <memory>

#include "data/packing/batch.h"
#include "engine/device/philox.h"
#include "tests/support/flat_sample.h"
#include "tests/support/test_gpu.h"
#include "train/folders/checkpoint_shards.h"
#include "train/selftest/random_model.h"

namespace colonnade {

struct TinyOptions {
    Recompute recompute = Recompute::none;
    std::shared_ptr<const Objective> objective{};  ///< null: the language model's
    Reference reference = Reference::batches;
    bool fp8 = false;
};
inline LearnerOptions tiny_options(DType dtype, int64_t packs, int64_t length, const TinyOptions& options) {
    LearnerOptions result{.max_packs = packs,
                          .max_length = length,
                          .head_chunk = 7,
                          .dtype = dtype,
                          .fp8 = options.fp8,
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

/// The numbers of an array of the learner's state.
inline std::vector<double> numbers_of(const Learner& learner, const StateArray& array) {
    return numbers_of(array.read(learner.options().gpu).tensor());
}
/// The weights, in full where a GPU has them in two halves.
inline std::vector<double> weights_of(const Learner& learner) {
    return numbers_of(learner, learner.master_weights());
}
/// The weights, then the optimizer's arrays. Codes of 8 bits count as numbers.
inline std::vector<std::vector<double>> state_of(const Learner& learner) {
    std::vector<std::vector<double>> state;
    for (const StateArray& array : arrays_of(learner)) {
        const HostCopy numbers = array.read(learner.options().gpu);
        const Tensor& t = numbers.tensor();
        if (t.dtype == DType::u8)
            state.emplace_back(t.as<uint8_t>(), t.as<uint8_t>() + t.numel());
        else
            state.push_back(numbers_of(t));
    }
    return state;
}

template <typename T>
std::vector<T> values_of(const Tensor& t) {
    return std::vector<T>(t.as<T>(), t.as<T>() + t.numel());
}

}  // namespace colonnade
