#pragma once
// Relative error of numbers: the Euclidean norm of the differences, divided by the norm of the expected numbers.

#include <cmath>
#include <vector>

#include "engine/device/error.h"

namespace colonnade {

/// Accumulates one or several tensors.
struct RelativeError {
    double error = 0, norm = 0;
    template <typename T>
    void add(const T* found, const std::vector<double>& expected) {
        for (size_t i = 0; i < expected.size(); ++i) {
            const double d = static_cast<double>(found[i]) - expected[i];
            error += d * d;
            norm += expected[i] * expected[i];
        }
    }
    double value() const { return std::sqrt(error / norm); }
};

template <typename T>
double relative_error(const T* found, const std::vector<double>& expected) {
    RelativeError e;
    e.add(found, expected);
    return e.value();
}

/// The same for two vectors of equal size.
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
    require(a.size() == b.size(), "{} numbers against {}", a.size(), b.size());
    return relative_error(a.data(), b);
}

}  // namespace colonnade
