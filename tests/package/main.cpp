// With equal keys, attention is the mean of the values that a row sees: those of its document up to itself.
#include <cmath>
#include <cstdio>

#include "document_attention.h"

int main() {
    const int64_t width = 64;
    const std::vector<int64_t> ends = {100, 250, 300};
    const auto elements = static_cast<size_t>(ends.back() * width);
    std::vector<float> q(elements, 0.5f), k(elements, 0.25f), v(elements);
    for (size_t i = 0; i < elements; ++i) v[i] = static_cast<float>(i % 31);
    const std::vector<float> out = document_attention(q, k, v, ends);
    double worst = 0;
    int64_t start = 0;
    for (const int64_t end : ends) {
        std::vector<double> sums(width);
        for (int64_t row = start; row < end; ++row)
            for (int64_t c = 0; c < width; ++c) {
                const auto i = static_cast<size_t>(row * width + c);
                sums[static_cast<size_t>(c)] += v[i];
                worst = std::fmax(worst, std::fabs(out[i] - sums[static_cast<size_t>(c)] / (row - start + 1)));
            }
        start = end;
    }
    std::printf("largest error %.1e\n", worst);
    return worst < 1e-4 ? 0 : 1;
}
