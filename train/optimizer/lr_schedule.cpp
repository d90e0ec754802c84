#include "train/optimizer/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace colonnade {
namespace {

double share(int64_t part, int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1));
}

double half_cosine(double progress) {
    return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
}

double decay(LrDecay type, double progress) {
    switch (type) {
        case LrDecay::linear:
            return 1 - progress;
        case LrDecay::cosine:
            return half_cosine(progress);
        case LrDecay::one_minus_sqrt:
            return 1 - std::sqrt(progress);
    }
    return 0;
}

double share_of_peak(const LrSchedule& s, int64_t step) {
    const double floor = s.min_lr_rate;
    const bool warming = s.type != LrScheduler::constant && step < s.warmup_steps;
    const double risen = share(step, s.warmup_steps);
    if (warming) return s.type == LrScheduler::wsd ? risen * (1 - floor) + floor : risen;

    const int64_t after_warmup = s.total_steps - s.warmup_steps;
    switch (s.type) {
        case LrScheduler::constant:
        case LrScheduler::constant_with_warmup:
            return 1;
        case LrScheduler::linear:
            return std::max(0.0, share(s.total_steps - step, after_warmup));
        case LrScheduler::cosine:
            return half_cosine(share(step - s.warmup_steps, after_warmup));
        case LrScheduler::cosine_with_min_lr:
            return half_cosine(share(step - s.warmup_steps, after_warmup)) * (1 - floor) + floor;
        case LrScheduler::cosine_with_restarts: {
            const double progress = share(step - s.warmup_steps, after_warmup);
            return progress >= 1 ? 0 : half_cosine(std::fmod(static_cast<double>(s.cycles) * progress, 1.0));
        }
        case LrScheduler::polynomial: {
            const double left = 1 - share(step - s.warmup_steps, after_warmup);
            return std::pow(std::max(left, 0.0), s.power) * (1 - floor) + floor;
        }
        case LrScheduler::inverse_sqrt:
            return std::sqrt(1 / share(step - s.warmup_steps + s.timescale, s.timescale));
        case LrScheduler::wsd:
            if (step >= s.total_steps) return floor;
            const int64_t decayed = std::max<int64_t>(step - (s.total_steps - s.decay_steps), 0);
            return decay(s.decay_type, share(decayed, s.decay_steps)) * (1 - floor) + floor;
    }
    return 0;
}

}  // namespace

double learning_rate(const LrSchedule& schedule, int64_t step) {
    return schedule.peak * share_of_peak(schedule, step);
}

}  // namespace colonnade
