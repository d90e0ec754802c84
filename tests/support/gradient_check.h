#pragma once
// For tests of ops: random inputs, central differences, comparisons, and the check that threads do not change bits.

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "engine/device/philox.h"
#include "engine/device/tensor.h"
#include "tests/support/expect_error.h"

namespace colonnade {

/// Standard normal numbers that a float holds exactly, so that float and double runs see the same input.
template <typename T>
std::vector<T> random_values(int64_t count, uint64_t stream) {
    const Philox philox{.seed = 7, .stream = stream};
    std::vector<T> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(static_cast<float>(philox.normal(i)));
    return values;
}

/// A contiguous view of the whole vector.
template <typename T>
Tensor tensor_of(std::vector<T>& values, std::initializer_list<int64_t> shape) {
    const Tensor tensor(values.data(), dtype_of<T>(), shape);
    require(tensor.numel() == std::ssize(values), "{} over {} values", tensor, values.size());
    return tensor;
}

template <typename T>
double inner_product(const std::vector<T>& a, const std::vector<T>& b) {
    require(a.size() == b.size(), "inner product of {} and {} values", a.size(), b.size());
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
}

/// Moves each of `values` by +-step and compares the slope of `loss` with `gradient`. The error is relative to the
/// entry, or to a hundredth of the largest entry if that is more, because the differences themselves are rounded.
inline void expect_gradient(const char* name, std::vector<double>& values, const std::vector<double>& gradient,
                            const std::function<double()>& loss, double tolerance = 1e-6, double step = 1e-5) {
    ASSERT_EQ(values.size(), gradient.size()) << name;
    std::vector<double> slopes;
    for (double& value : values) {
        const double saved = value;
        value = saved + step;
        const double up = loss();
        value = saved - step;
        slopes.push_back((up - loss()) / (2 * step));
        value = saved;
    }
    double largest = 0;
    for (const double slope : slopes) largest = std::max(largest, std::abs(slope));
    EXPECT_GT(largest, 0) << name << ": a constant loss checks nothing";
    for (size_t i = 0; i < slopes.size(); ++i)
        EXPECT_NEAR(gradient[i], slopes[i], tolerance * std::max(std::abs(slopes[i]), 0.01 * largest))
            << name << " element " << i;
}

/// Expects each entry to differ by at most `roundings` float roundings of the largest entry of `expected`.
template <typename T>
void expect_close(const std::vector<T>& found, const std::vector<double>& expected, double roundings) {
    ASSERT_EQ(found.size(), expected.size());
    double largest = 0;
    for (const double e : expected) largest = std::max(largest, std::abs(e));
    const double bound = roundings * static_cast<double>(std::numeric_limits<T>::epsilon()) * largest;
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], bound) << "element " << i;
}

/// Expects `run` to return the same bits with one thread and with three. It needs enough work: small forward ops use
/// one thread.
template <typename Run>
void expect_same_with_any_threads(Run&& run) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    const auto alone = run();
    omp_set_num_threads(3);
    const auto together = run();
    omp_set_num_threads(before);
    EXPECT_EQ(alone, together);
}

}  // namespace colonnade
