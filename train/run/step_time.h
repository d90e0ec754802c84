#pragma once
// Predicted time of a training step on one GPU, from counts and rates alone, so that settings can be compared and plans
// can name a time for a GPU that is not here:
//
//     products   floating-point operations of matrix products, recomputed ones too, over 0.62 of the GPU's bf16 peak. Norms,
//                rope, SwiGLU and the loss, 5 to 9 % of a step, are part of that share. With compute: fp8 those of blocks'
//                outputs and of the gradients of their inputs are 1.6 times as fast, and rounding counts as memory
//     attention  4 x query width x visible pairs forward over 0.60 of the peak, 2.5 times that backward over 0.52
//     memory     what larger micro-steps or other settings would spare, over 0.8 of the memory's bandwidth: gradients of
//                matrices that each micro-step but the first reads and writes again, gradients of the head for each chunk
//                but the first, norms and SwiGLU that `selective` recomputes, what adapters read and add to, wide copies of
//                a quantised base, and the update
//     bus        hosted optimizer state, and gradients of hosted blocks, one way, because both ways go at the same time and
//                nothing else hides them; and what inputs, weights and gradients of blocks take longer than the compute
//                beside them
//
// Measured shares (docs/benchmarks.md): products run at 0.68 to 0.72 of the peak; attention at 0.6 and 0.52 in long
// documents at head_dim 128 (docs/attention.md); AdamW at 3.9 TB/s on an H200. With them the figures of docs/benchmarks.md,
// docs/learning.md and docs/lora.md, all of an H200, come out within 6 % (tests/train/bench/step_time_test.cpp). Short
// documents, small models and small micro-steps take longer than predicted. Not counted: the exchange between ranks, the
// loader, evaluation, saves.

#include "train/run/gpu_rates.h"
#include "train/run/step_flops.h"
#include "train/step/learner.h"

namespace colonnade {

/// Seconds.
struct StepTime {
    double compute = 0;              ///< products, attention and memory
    double recomputed = 0;           ///< what of these is for activations that are not kept
    double optimizer_transfer = 0;   ///< for optimizer state in host memory
    double weight_transfer = 0;      ///< for weights and gradients in host memory, the update's part of it included
    double activation_transfer = 0;  ///< for inputs of blocks in host memory: what compute does not hide
    double total() const { return compute + optimizer_transfer + weight_transfer + activation_transfer; }
};

/// A step of `micro_steps` on one rank, which computes `amounts` in all of them together.
StepTime predict_step(const ModelConfig& model, const LearnerOptions& options, int64_t micro_steps,
                      const StepAmounts& amounts, const GpuRates& rates);

}  // namespace colonnade
