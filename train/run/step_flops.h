#pragma once
// Useful floating-point operations of a training step, so that tokens/s can be compared with the peak of a device:
//
//     6 x weights of the blocks' matrices x real tokens + 6 x weights of the head x targets
//         + 12 x heads x head_dim x visible (query, key) pairs, summed over layers
//
// With LoRA the 6 becomes 4, because frozen weights have no gradient, plus 6 x weights of the adapters x real tokens. A
// reference that the base computes for every batch adds its forward pass: 2 x weights, 4 x pairs.
//
// The head only runs on rows that have a target: the last row of a prompt that answers share has one target per answer.
// A reward model's head is a single row and runs once per answer. All blocks count for every real token, as is usual,
// though the last one computes only the rows that the head reads (train/model/block.h). Padding, hidden elements of partial tiles and
// anything computed twice (recomputation, the logits of preferences) do not count.

#include <functional>

#include "data/packing/batch.h"
#include "train/model/lora.h"

namespace colonnade {

/// Visible (query, key) pairs of a batch, summed over the layers; sliding windows count.
int64_t visible_pairs(const ModelConfig& config, const Batch& batch);

/// Visible pairs of a text's tokens [begin, end) with all of its tokens before them: one layer with this window; 0: none.
double causal_pairs(double begin, double end, double window);
/// The sum of `pairs_of(window)` over the layers.
double over_layers(const ModelConfig& config, const std::function<double(int64_t window)>& pairs_of);

/// How much a step or a part of it computes with.
struct StepAmounts {
    double tokens = 0;     ///< real ones
    double targets = 0;    ///< rows that the language model's head reads
    double sequences = 0;  ///< rows that a reward model's head reads
    double pairs = 0;      ///< visible ones, summed over the layers

    StepAmounts times(double factor) const {
        return {tokens * factor, targets * factor, sequences * factor, pairs * factor};
    }
    static StepAmounts of(const ModelConfig& config, const Batch& batch);
};

struct StepWork {
    const LoraSettings* lora = nullptr;  ///< null: the whole model is trained
    bool reference_forward = false;      ///< LearnerOptions::reference
};
struct StepFlops {
    double products = 0, attention = 0;
    double total() const { return products + attention; }
};
StepFlops useful_flops(const ModelConfig& config, const StepAmounts& amounts, const StepWork& work = {});
double useful_flops(const ModelConfig& config, const Batch& batch, const StepWork& work = {});

}  // namespace colonnade
