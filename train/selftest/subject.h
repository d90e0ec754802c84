#pragma once
// Subject: a model with an objective and samples, which a check of `colonnade selftest` trains in several layouts.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/selftest/step_outcome.h"

namespace colonnade {

/// How large the batches are that a learner gets.
struct BatchRoom {
    int64_t packs = 1, length = 1;
    static BatchRoom of(std::span<const Batch> batches);
};

struct Subject {
    std::string name;  ///< of the model: "qwen2"
    /// Makes a learner for batches of this size, with the weights that all checks start from.
    std::function<std::unique_ptr<Learner>(const BatchRoom& room)> learner;
    std::vector<Sample> samples;
    Sharing sharing = Sharing::sample;
    std::vector<double> reference{};  ///< StepRun::reference
    double bound = 0;                 ///< of the relative difference between two layouts
    bool each_parameter = false;      ///< it holds for the gradient of each parameter, else for all together
    bool ties = false;                ///< metrics may also differ by one target or pair, on the other side of a tie

    /// Batches of one whole sample each, which shares nothing.
    std::vector<Batch> separate() const;
    /// One batch that has the samples in so many packs, in their order; fewer if there are fewer samples.
    Batch packed(size_t packs) const;
    /// The same as batches of one pack each.
    std::vector<Batch> in_parts(size_t packs) const;
    /// The objective's total of all samples.
    double total(const Objective& objective) const;

  private:
    std::vector<std::vector<const Sample*>> groups(size_t count) const;
};

/// Models of every family with random weights, on the CPU in f32 or on `gpu` in bf16, and random samples of a stage: sft,
/// dpo, rm, kto, grpo; or "trees": texts in rows that share what they begin with.
std::vector<Subject> random_subjects(const std::string& stage, Gpu* gpu);
/// The same in double on the CPU, with models of that size or tiny ones.
enum class ModelSize { small, tiny };
std::vector<Subject> exact_subjects(const std::string& stage, ModelSize size);

}  // namespace colonnade
