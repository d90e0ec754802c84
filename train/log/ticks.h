#pragma once
// Where an axis has its ticks, and what stands beside them.

#include <string>
#include <vector>

namespace colonnade {

/// About `count` multiples of 1, 2 or 5 times a power of ten within [low, high].
std::vector<double> round_ticks(double low, double high, int count);

/// All with as many decimals as their distance needs: "0.0", "0.5", "1.0".
std::vector<std::string> tick_labels(const std::vector<double>& ticks);

}  // namespace colonnade
