#pragma once
// PackSchedule: the packs of every optimizer step of a run, known before the run starts. Every epoch is packed anew
// (data/packing/packer.h), so that epochs may differ by a step, and each step's packs are dealt to the ranks by their
// cost (data/packing/step_layout.h). The plan of an epoch is computed on demand, and only
// the latest plan is kept. To find a step costs one plan per epoch since the last step that was looked for, about 30 ms
// for 100,000 samples; it never iterates over steps. Memory does not depend on the number of steps.
//
// To count the steps of E shuffled epochs exactly takes E plans. With more than counted_epochs() the count of those is
// extrapolated, so that a run starts within a second or two however long it is:
//
//     steps(E) = round(steps(counted) * E / counted)          if E > counted = max(16, 4,000,000 / samples)
//
// The packs of every step are the same either way: only the last step of such a run may lie a little before or after the
// end of its last epoch.

#include <cstdint>
#include <memory>
#include <vector>

#include "data/packing/packer.h"
#include "data/packing/step_layout.h"

namespace colonnade {

struct PackScheduleSettings {
    PackSettings packing{};
    StepLayout layout{};
    double epochs = 3;      ///< passes over the data; a fraction ends the last one early (rounded up to a whole step)
    int64_t max_steps = 0;  ///< > 0: number of steps, instead of epochs
};

class PackSchedule {
  public:
    /// `lengths` and `prefixes` are those of Packer. `visible`: visible_pairs() of each sample (data/samples/sample.h);
    /// empty if every sample is one sequence, so that its length says it. Throws Exit::config for settings out of range
    /// or samples longer than a pack, Exit::data if there are no samples.
    PackSchedule(std::vector<int64_t> lengths, PackScheduleSettings settings, PrefixOrder prefixes = {},
                 std::vector<int64_t> visible = {});

    int64_t total_steps() const { return total_steps_; }
    /// Epochs whose steps and packs are worth counting one by one.
    int64_t counted_epochs() const;
    /// True if total_steps() is extrapolated.
    bool extrapolated() const { return extrapolated_; }

    /// Epoch of a global step (0-based), and the step within it.
    struct Position {
        int64_t epoch, step;  ///< step within the epoch
    };
    Position locate(int64_t global_step);
    int64_t steps_in(int64_t epoch) { return settings_.layout.steps(plan(epoch)); }
    /// The plan of an epoch; valid until the next call of a non-const function.
    const PackPlan& plan(int64_t epoch);

    const PackScheduleSettings& settings() const { return settings_; }
    const std::vector<int64_t>& lengths() const { return packer_->lengths(); }
    const std::vector<int64_t>& visible_pairs() const { return *visible_; }  ///< of each sample
    /// Whether the samples of a row share their prefixes.
    bool shares() const { return packer_->shares(); }

  private:
    int64_t count_steps();

    PackScheduleSettings settings_;
    // Copies of a schedule have these in common.
    std::shared_ptr<const Packer> packer_;
    std::shared_ptr<const std::vector<int64_t>> visible_;
    int64_t total_steps_ = 0;
    bool extrapolated_ = false;
    int64_t epoch_ = 0, first_step_ = 0;  ///< the epoch that locate() found last, and its first global step
    PackPlan plan_;
    int64_t planned_epoch_ = -1;
};

}  // namespace colonnade
