#pragma once
// What a training step computes, counted the honest way, for tokens/s to be held against what a device can do:
//
//     6 x weights of the blocks' matrices x real tokens + 6 x weights of the head x targets
//         + 12 x heads x head_dim x visible (query, key) pairs, summed over layers
//
// With LoRA 4 in place of 6, as frozen weights have no gradient, and 6 x numbers of the adapters x real tokens. A reference
// that the base computes with every batch adds its forward: 2 x weights, 4 x pairs.
//
// The head only runs on rows that carry a target: the last row of a prompt that answers share has one for each of them. A
// reward model's head is one row, over the answers. Padding, hidden elements of partial tiles and what is computed twice
// (recomputation, the logits of preferences) count for nothing.

#include <string_view>

#include "data/packing/batch.h"
#include "train/model/lora.h"

namespace colonnade {

/// Visible pairs of a batch, sliding windows included, summed over the layers.
int64_t visible_pairs(const ModelConfig& config, const Batch& batch);

struct StepWork {
    const LoraSettings* lora = nullptr;  ///< null: the whole model is trained
    bool reference_forward = false;      ///< LearnerOptions::reference
};
double useful_flops(const ModelConfig& config, const Batch& batch, const StepWork& work = {});

/// Dense bf16 FLOP/s by data sheet, from the name that the driver gives a device; 0 where not known.
double dense_bf16_peak(std::string_view device_name);

}  // namespace colonnade
