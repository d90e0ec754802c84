#pragma once
// SpikeWatch: finds steps whose loss or gradient norm lies far above those of the steps before. Both are judged by a
// robust z-score over a window of steps:
//
//     z = (x - median) / (1.4826 * median of |x' - median|)
//
// 1.4826 makes the scale that of a normal distribution's standard deviation. Median and scale hardly change by a spike
// in the window, unlike mean and deviation. Only upward spikes count, and nothing is judged before half of the window
// is full. If the level rises for good, the watch has adopted it after half a window.
//
// A step is judged by the steps up to the one before its predecessor, because on a GPU the predecessor's result is not
// known when the update is enqueued. So the limits are known beforehand, are the same on every device and rank, and do
// not depend on evaluations and saves.

#include <cstdint>
#include <string>
#include <vector>

#include "train/optimizer/adamw.h"

namespace colonnade {

struct StepNumbers {
    int64_t step = 0;  ///< 1 for the first
    double loss = 0, gradient_norm = 0;
};

struct SpikeSettings {
    double z = 6;          ///< above it a value is a spike
    int64_t window = 128;  ///< steps
};

class SpikeWatch {
  public:
    /// `recent`: recent() of the watch that this one continues.
    explicit SpikeWatch(const SpikeSettings& settings = {}, std::vector<StepNumbers> recent = {});

    /// The values that are no spike at a step: infinite until enough steps are known. Does not depend on whether
    /// earlier steps than its predecessor's predecessor, and no others, were added.
    UpdateLimits limits(int64_t step) const;
    /// "loss 9.71 (z 48.1), grad_norm 3.20 (z 1.2)"
    std::string figures(const StepNumbers& numbers) const;
    /// Adds the finite numbers of a step; steps come in order.
    void add(const StepNumbers& numbers);
    /// The steps that limits() needs; part of a checkpoint.
    const std::vector<StepNumbers>& recent() const { return recent_; }

  private:
    struct Level {
        double median = 0, scale = 0;  ///< scale 0: nothing is judged
    };
    Level level(int64_t step, double StepNumbers::*number) const;

    SpikeSettings settings_;
    std::vector<StepNumbers> recent_;
};

}  // namespace colonnade
