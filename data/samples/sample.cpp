#include "data/samples/sample.h"

#include <algorithm>

namespace colonnade {

double target_weight(std::span<const float> weights, std::span<const int32_t> branch_begins) {
    double sum = 0;
    for_each_target(weights, branch_begins, [&](int32_t token, int32_t, int32_t) {
        sum += static_cast<double>(weights[static_cast<size_t>(token)]);
    });
    return sum;
}

bool window_fits_column_mask(std::span<const int32_t> branch_begins, int64_t window) {
    const int64_t smallest = std::max<int64_t>(window - branch_begins.front(), 1);
    if (smallest >= window) return true;  // every column within the window has t_j <= 0
    int64_t longer = 0;
    for (size_t b = 0; b + 1 < branch_begins.size(); ++b) longer += branch_begins[b + 1] - branch_begins[b] > smallest;
    return longer <= 1;
}

}  // namespace colonnade
