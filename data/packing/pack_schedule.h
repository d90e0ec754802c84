#pragma once
// PackSchedule: which packs are trained on at which optimizer step, from the first step to the last, known before
// anything runs. Every epoch is packed anew (data/packing/packer.h), so that epochs may differ by a step; the plan of an epoch
// is computed when it is asked for and only the latest one is kept. Finding a step anywhere costs a plan per epoch
// before it, some 30 ms for 100,000 samples, and never a walk over the steps.

#include <cstdint>
#include <vector>

#include "data/packing/packer.h"

namespace colonnade {

struct PackScheduleSettings {
    PackSettings packing{};
    StepLayout layout{};
    double epochs = 3;      ///< passes over the data; a fraction ends the last one early (rounded up to a whole step)
    int64_t max_steps = 0;  ///< > 0: so many steps, whatever number of epochs they take
};

class PackSchedule {
  public:
    /// `lengths`: tokens of each sample. Throws Exit::config for settings out of range or samples that fit no pack,
    /// Exit::data where there are no samples.
    PackSchedule(std::vector<int64_t> lengths, PackScheduleSettings settings);

    int64_t total_steps() const { return total_steps_; }

    /// Where a global step (0-based) lies.
    struct Position {
        int64_t epoch, step;  ///< step within the epoch
    };
    Position locate(int64_t global_step);
    int64_t steps_in(int64_t epoch) { return settings_.layout.steps(plan(epoch)); }
    /// Valid until the next call of a function that is not const.
    const PackPlan& plan(int64_t epoch);

    const PackScheduleSettings& settings() const { return settings_; }
    const std::vector<int64_t>& lengths() const { return lengths_; }

  private:
    int64_t count_steps();

    std::vector<int64_t> lengths_;
    PackScheduleSettings settings_;
    int64_t total_steps_ = 0;
    std::vector<int64_t> first_steps_ = {0};  ///< global step with which each epoch begins, as far as known
    PackPlan plan_;
    int64_t planned_epoch_ = -1;
};

}  // namespace colonnade
