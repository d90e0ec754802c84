#include "train/step/spike_watch.h"

#include <algorithm>
#include <cmath>

namespace colonnade {
namespace {

/// The scale is at least this share of the median, so that values which hardly vary at all, such as those of a run
/// that repeats one batch, are no spikes.
constexpr double least_share = 1e-3;

double median_of(std::vector<double>& values) {
    const auto middle = values.begin() + std::ssize(values) / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

}  // namespace

SpikeWatch::SpikeWatch(const SpikeSettings& settings, std::vector<StepNumbers> recent)
    : settings_(settings), recent_(std::move(recent)) {}

SpikeWatch::Level SpikeWatch::level(int64_t step, double StepNumbers::*number) const {
    std::vector<double> values;
    for (auto known = recent_.rbegin(); known != recent_.rend() && std::ssize(values) < settings_.window; ++known)
        if (known->step <= step - 2) values.push_back((*known).*number);
    if (2 * std::ssize(values) < settings_.window) return {};
    const double median = median_of(values);
    for (double& value : values) value = std::abs(value - median);
    return {median, std::max(1.4826 * median_of(values), least_share * std::abs(median))};
}

UpdateLimits SpikeWatch::limits(int64_t step) const {
    UpdateLimits limits;
    const auto set = [&](double& limit, double StepNumbers::*number) {
        const Level found = level(step, number);
        if (found.scale > 0) limit = found.median + settings_.z * found.scale;
    };
    set(limits.loss, &StepNumbers::loss);
    set(limits.gradient_norm, &StepNumbers::gradient_norm);
    return limits;
}

std::string SpikeWatch::figures(const StepNumbers& numbers) const {
    const auto figure = [&](const char* name, double StepNumbers::*number) {
        const Level found = level(numbers.step, number);
        const double z = found.scale > 0 ? (numbers.*number - found.median) / found.scale : 0;
        return fmt::format("{} {:.4g} (z {:.1f})", name, numbers.*number, z);
    };
    return figure("loss", &StepNumbers::loss) + ", " + figure("grad_norm", &StepNumbers::gradient_norm);
}

void SpikeWatch::add(const StepNumbers& numbers) {
    recent_.push_back(numbers);
    // One more than the window: a step does not see its predecessor.
    if (std::ssize(recent_) > settings_.window + 1) recent_.erase(recent_.begin());
}

}  // namespace colonnade
