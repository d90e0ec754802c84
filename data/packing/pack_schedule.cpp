#include "data/packing/pack_schedule.h"

#include <algorithm>
#include <cmath>

#include "engine/device/error.h"

namespace colonnade {

PackSchedule::PackSchedule(std::vector<int64_t> lengths, PackScheduleSettings settings, PrefixOrder prefixes,
                           std::vector<int64_t> visible)
    : settings_(settings) {
    const auto& [per_device_batch, accumulation, ranks] = settings_.layout;
    if (per_device_batch < 1 || accumulation < 1 || ranks < 1) {
        fail(Exit::config, "a step of {} packs x {} accumulation steps x {} ranks: each must be at least 1",
             per_device_batch, accumulation, ranks);
    }
    if (settings_.max_steps < 0)
        fail(Exit::config, "max_steps is {}, expected 0 (not limited) or more", settings_.max_steps);
    if (settings_.max_steps == 0 && !(settings_.epochs > 0 && settings_.epochs <= 1e9)) {
        fail(Exit::config, "{} epochs, expected more than 0 and at most 1e9", settings_.epochs);
    }
    if (lengths.empty()) fail(Exit::data, "there are no samples to schedule");
    if (visible.empty())
        for (const int64_t length : lengths) visible.push_back(colonnade::visible_pairs(length));
    require(visible.size() == lengths.size(), "visible pairs of {} samples for {}", visible.size(), lengths.size());
    visible_ = std::make_shared<const std::vector<int64_t>>(std::move(visible));
    packer_ = std::make_shared<const Packer>(std::move(lengths), settings_.packing, std::move(prefixes));
    total_steps_ = settings_.max_steps > 0 ? settings_.max_steps : count_steps();
}

int64_t PackSchedule::counted_epochs() const {
    return std::max<int64_t>(16, 4'000'000 / std::ssize(lengths()));
}

int64_t PackSchedule::count_steps() {
    const auto whole = static_cast<int64_t>(settings_.epochs);
    const double rest = settings_.epochs - static_cast<double>(whole);
    int64_t steps = 0;
    if (!settings_.packing.shuffle) {
        steps = whole * steps_in(0);
    } else if (const int64_t counted = counted_epochs(); whole > counted) {
        for (int64_t epoch = 0; epoch < counted; ++epoch) steps += steps_in(epoch);
        extrapolated_ = true;
        return std::llround(static_cast<double>(steps) * (settings_.epochs / static_cast<double>(counted)));
    } else {
        for (int64_t epoch = 0; epoch < whole; ++epoch) steps += steps_in(epoch);
    }
    // 0.1 of 30 steps is 3, although the double 0.1 is slightly more than a tenth.
    if (rest > 0) steps += static_cast<int64_t>(std::ceil(rest * static_cast<double>(steps_in(whole)) * (1 - 1e-9)));
    return std::max<int64_t>(steps, 1);
}

PackSchedule::Position PackSchedule::locate(int64_t global_step) {
    require(global_step >= 0, "step {} is negative", global_step);
    if (global_step < first_step_) epoch_ = first_step_ = 0;
    for (int64_t steps; first_step_ + (steps = steps_in(epoch_)) <= global_step; ++epoch_) first_step_ += steps;
    return {epoch_, global_step - first_step_};
}

const PackPlan& PackSchedule::plan(int64_t epoch) {
    if (!settings_.packing.shuffle) epoch = 0;
    if (epoch != planned_epoch_) {
        plan_ = packer_->plan(epoch);
        deal_packs(plan_, settings_.layout, *visible_);
        planned_epoch_ = epoch;
    }
    return plan_;
}

}  // namespace colonnade
