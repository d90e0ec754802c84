#pragma once
// Small models with random adapters, and their gradients.

#include "tests/support/relative_error.h"
#include "tests/support/tiny_model.h"
#include "train/model/lora.h"

namespace colonnade {

inline LoraSettings lora_of(std::set<std::string> targets = {}, int64_t rank = 3) {
    if (targets.empty()) targets.insert(lora_modules().begin(), lora_modules().end());
    return {.rank = rank, .alpha = 5, .targets = std::move(targets)};
}

/// The model of tiny_learner as a frozen base, with random adapters.
inline std::unique_ptr<Learner> lora_learner(const ModelConfig& config, DType dtype, const LoraSettings& lora,
                                             int64_t packs, int64_t length, const TinyOptions& options = {},
                                             std::optional<WeightCode> code = {}) {
    LearnerOptions with_lora = tiny_options(dtype, packs, length, options);
    with_lora.seed = 11;
    with_lora.lora = lora;
    with_lora.base_code = code;
    auto learner = std::make_unique<Learner>(config, with_lora);
    const auto base = tiny_learner(config, DType::f64, 1, 2);
    learner->fill_base([&](const Parameter& p, const Tensor& into) {
        const double* from = base->weights().as<double>() + p.begin;
        dispatch_float(into.dtype, [&]<typename T>() {
            std::transform(from, from + p.size(), into.as<T>(), [](double x) { return static_cast<T>(x); });
        });
    });
    randomize(*learner, 5);
    return learner;
}

/// The same model with its adapters merged, for full training.
inline std::unique_ptr<Learner> merged_learner(const Learner& learner, DType dtype) {
    const LoraSettings& lora = *learner.options().lora;
    auto merged = tiny_learner(learner.config(), dtype, learner.options().max_packs, learner.options().max_length,
                               {.objective = learner.options().objective});
    const auto pairs = weights_of(learner), base = numbers_of(learner, learner.base());
    merged->fill_weights([&](const Tensor& weights) {
        dispatch_float(weights.dtype, [&]<typename T>() {
            std::copy(base.begin(), base.end(), weights.as<T>());
            std::vector<T> flat(pairs.begin(), pairs.end());
            merge_lora(lora, learner.parameters(), Tensor(flat.data(), weights.dtype, {std::ssize(flat)}),
                       merged->parameters(), weights);
        });
    });
    return merged;
}

inline std::vector<double> gradients_of(Learner& learner, const std::vector<Batch>& batches, double total) {
    learner.begin_step();
    for (const Batch& batch : batches)
        learner.accumulate(learner.context({.deterministic = true}), batch, {.total = total});
    return numbers_of(learner, learner.gradients());
}
inline std::vector<double> gradients_of(Learner& learner, const Batch& batch) {
    return gradients_of(learner, {batch}, learner.objective().total(batch));
}

}  // namespace colonnade
