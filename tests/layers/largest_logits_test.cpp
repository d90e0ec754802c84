// The largest logits of a row against sorting all of them in double: ties, infinities, rows that are no numbers, every k.

#include "layers/largest_logits.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/device/philox.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

struct LargestLogitsOnDevice : DeviceCase {};

TEST_P(LargestLogitsOnDevice, AreThoseOfASortedRow) {
    const Philox random{3, 0};
    for (const int64_t vocab : {1, 7, 300, 1001, 33001})
        for (const int64_t k : {1, 5, 256}) {
            if (k > vocab) continue;
            constexpr int64_t rows = 6;
            std::vector<float> logits(static_cast<size_t>(rows * vocab));
            for (size_t i = 0; i < logits.size(); ++i) {
                const auto row = static_cast<int64_t>(i) / vocab;
                const double x = random.normal(i) * (row == 1 ? 1e-30 : 4);
                // Row 2 has few values, so that the k-th is one of many; row 3 half of them -inf; 0 and -0 are equal.
                logits[i] = static_cast<float>(row == 2 ? std::round(x / 4) * 0.5 : x);
                if (row == 3 && i % static_cast<size_t>(vocab) % 2 == 1) logits[i] = -INFINITY;
                if (row == 4) logits[i] = i % 3 == 0 ? -0.0f : 0.0f;
                if (row == 5 && i % static_cast<size_t>(vocab) == 0) logits[i] = NAN;
            }
            release();
            const Twin given = twin(DType::f32, {rows, vocab}, std::vector<double>(logits.begin(), logits.end()));
            const Twin ids = twin(DType::i32, {rows, k}, std::vector<double>(static_cast<size_t>(rows * k), 7));
            const Twin log_probs = poisoned(DType::f32, {rows, k});
            largest_logits(context(), {.ids = ids.device, .log_probs = log_probs.device, .logits = given.device});
            const std::vector<double> found = read(ids.device), values_found = read(log_probs.device);
            for (int64_t r = 0; r < rows; ++r) {
                const float* const row = logits.data() + r * vocab;
                std::vector<int32_t> order(static_cast<size_t>(vocab));
                std::iota(order.begin(), order.end(), 0);
                std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return row[a] > row[b]; });
                double sum = 0;
                for (int64_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(row[v]));
                for (int64_t i = 0; i < k; ++i) {
                    const auto at = static_cast<size_t>(r * k + i);
                    if (r == 5) {
                        ASSERT_EQ(found[at], -1);
                        continue;
                    }
                    const int32_t id = order[static_cast<size_t>(i)];
                    ASSERT_EQ(found[at], id) << "row " << r << ", place " << i << ", vocab " << vocab << ", k " << k;
                    const double expected = static_cast<double>(row[id]) - std::log(sum);
                    if (std::isfinite(expected)) {
                        ASSERT_NEAR(values_found[at], expected, 2e-5) << "row " << r << ", place " << i;
                    } else {
                        ASSERT_EQ(values_found[at], expected);
                    }
                }
            }
        }
}

INSTANTIATE_TEST_SUITE_P(Devices, LargestLogitsOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
