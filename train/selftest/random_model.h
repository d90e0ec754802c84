#pragma once
// Small models with random weights, and random samples, for the checks of `colonnade selftest` and for tests.

#include <vector>

#include "data/samples/sample.h"
#include "train/step/learner.h"

namespace colonnade {

/// Two layers of twelve features, for computations in double. Mistral and Qwen 2 have sliding windows.
ModelConfig tiny_config(Architecture architecture, bool tied = true);
/// The same with sizes that the kernels of a GPU take, and weights that give logits of usual size.
ModelConfig small_config(Architecture architecture, bool tied = true);

/// Random weights everywhere, also for norms (around 1), biases and both matrices of adapters, so that nothing is right
/// by accident. bf16 can hold all of them, so that every dtype and device sees the same.
void randomize(Learner& learner, uint64_t seed);

/// A sample whose sequences share a stem, with answers of these lengths behind it. About two in three tokens of an answer
/// have a loss, of weight 1 or 0.5. With several answers each should beat the later ones.
Sample random_sample(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab);
/// The same, but every token of an answer has a loss, of weight 1.
Sample random_answers(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab);
/// Sequence `number` of a sample alone, without what belongs to an answer.
Sample alone(const Sample& sample, size_t number);

}  // namespace colonnade
