#pragma once
// PackSchedule: the packs of every optimizer step of a run, known before the run starts. Every epoch is packed anew
// (data/packing/packer.h), so that epochs may differ by a step. The plan of an epoch is computed on demand, and only
// the latest plan is kept. To find a step costs one plan per epoch before it, about 30 ms for 100,000 samples; it never
// iterates over steps.

#include <cstdint>
#include <vector>

#include "data/packing/packer.h"

namespace colonnade {

struct PackScheduleSettings {
    PackSettings packing{};
    StepLayout layout{};
    double epochs = 3;      ///< passes over the data; a fraction ends the last one early (rounded up to a whole step)
    int64_t max_steps = 0;  ///< > 0: number of steps, instead of epochs
};

class PackSchedule {
  public:
    /// `lengths`: tokens of each sample. Throws Exit::config for settings out of range or samples longer than a pack,
    /// Exit::data if there are no samples.
    PackSchedule(std::vector<int64_t> lengths, PackScheduleSettings settings);

    int64_t total_steps() const { return total_steps_; }

    /// Epoch of a global step (0-based), and the step within it.
    struct Position {
        int64_t epoch, step;  ///< step within the epoch
    };
    Position locate(int64_t global_step);
    int64_t steps_in(int64_t epoch) { return settings_.layout.steps(plan(epoch)); }
    /// The plan of an epoch; valid until the next call of a non-const function.
    const PackPlan& plan(int64_t epoch);

    const PackScheduleSettings& settings() const { return settings_; }
    const std::vector<int64_t>& lengths() const { return lengths_; }

  private:
    int64_t count_steps();

    std::vector<int64_t> lengths_;
    PackScheduleSettings settings_;
    int64_t total_steps_ = 0;
    std::vector<int64_t> first_steps_ = {0};  ///< first global step of each epoch found so far
    PackPlan plan_;
    int64_t planned_epoch_ = -1;
};

}  // namespace colonnade
