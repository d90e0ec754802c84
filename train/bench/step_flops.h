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

#include <string_view>

#include "data/packing/batch.h"
#include "train/model/lora.h"

namespace colonnade {

/// Visible (query, key) pairs of a batch, summed over the layers; sliding windows count.
int64_t visible_pairs(const ModelConfig& config, const Batch& batch);

struct StepWork {
    const LoraSettings* lora = nullptr;  ///< null: the whole model is trained
    bool reference_forward = false;      ///< LearnerOptions::reference
};
double useful_flops(const ModelConfig& config, const Batch& batch, const StepWork& work = {});

/// Dense bf16 FLOP/s by data sheet, from the name that the driver reports for a device; 0 if unknown.
double dense_bf16_peak(std::string_view device_name);

}  // namespace colonnade
