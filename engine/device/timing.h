#pragma once

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

namespace colonnade {

/// Wall-clock seconds from `start` until now.
inline double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline void sleep_for(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// The middle value, or the mean of the two middle ones; `values` must not be empty.
inline double median(std::vector<double> values) {
    std::ranges::sort(values);
    const size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace colonnade
