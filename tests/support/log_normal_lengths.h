#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/device/philox.h"

namespace colonnade {

/// Lengths whose logarithm is normal, as those of texts roughly are.
inline std::vector<int64_t> log_normal_lengths(size_t n, double mean_log, double sigma, int64_t longest,
                                               uint64_t seed = 3) {
    std::vector<int64_t> lengths(n);
    const Philox random{seed, 0};
    for (size_t i = 0; i < n; ++i) {
        lengths[i] = std::clamp<int64_t>(std::llround(std::exp(mean_log + sigma * random.normal(i))), 1, longest);
    }
    return lengths;
}

}  // namespace colonnade
