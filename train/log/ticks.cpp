#include "train/log/ticks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace colonnade {

std::vector<double> round_ticks(double low, double high, int count) {
    const double rough = (high - low) / std::max(count, 1);
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double factor : {5.0, 2.0, 1.0})
        if (factor * power >= rough * 0.999) step = factor * power;
    std::vector<double> ticks;
    // Above 2^53 steps of 1 vanish in `n`, so the number of ticks is bounded.
    const size_t most = 10 * static_cast<size_t>(std::max(count, 1));
    for (double n = std::ceil(low / step - 1e-9); n * step <= high + 1e-9 * step && ticks.size() < most; ++n)
        ticks.push_back(n * step + 0.0);
    return ticks;
}

std::vector<std::string> tick_labels(const std::vector<double>& ticks) {
    const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
    const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
    std::vector<std::string> labels;
    labels.reserve(ticks.size());
    for (const double tick : ticks) labels.push_back(fmt::format("{:.{}f}", tick, decimals));
    return labels;
}

}  // namespace colonnade
