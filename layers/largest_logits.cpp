#include "layers/largest_logits.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

template <typename T>
void of_row(const T* logits, int64_t vocab, std::span<int32_t> ids, float* log_probs) {
    std::vector<int32_t> order(static_cast<size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
    const auto before = [&](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    const bool numbers = std::none_of(logits, logits + vocab, [](T x) { return std::isnan(x); });
    if (numbers) std::ranges::partial_sort(order, order.begin() + std::ssize(ids), before);
    const T largest = logits[order[0]];
    if (!numbers || !std::isfinite(largest)) {
        std::ranges::fill(ids, -1);
        std::fill_n(log_probs, ids.size(), 0.0f);
        return;
    }
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(logits[v] - largest));
    for (size_t i = 0; i < ids.size(); ++i) {
        ids[i] = order[i];
        log_probs[i] = static_cast<float>(static_cast<double>(logits[order[i]] - largest) - std::log(sum));
    }
}

}  // namespace

void largest_logits(const Context& ctx, const LargestLogits& args) {
    const int64_t rows = args.logits.size(0), vocab = args.logits.size(1), k = args.ids.size(1);
    const ShapeCheck check = check_in_double(ctx, "largest_logits");
    require(k >= 1 && k <= std::min(vocab, LargestLogits::max_k), "largest_logits: {} of {} tokens, expected 1 to {}",
            k, vocab, std::min(vocab, LargestLogits::max_k));
    check("ids", args.ids, DType::i32, {rows, k});
    check("log_probs", args.log_probs, DType::f32, {rows, k});
    require(args.logits.dtype == DType::f32 || (ctx.device == Device::cpu && args.logits.dtype == DType::f64),
            "largest_logits: logits of {}", args.logits.dtype);
    if (ctx.device == Device::cuda) return cuda::largest_logits(ctx, args);
    dispatch_float(args.logits.dtype, [&]<typename T>() {
        const Rows<T> logits{args.logits.as<T>(), args.logits.stride[0]};
#pragma omp parallel for schedule(static) if (rows * vocab >= parallel_from)
        for (int64_t r = 0; r < rows; ++r)
            of_row(logits[r], vocab, {args.ids.as<int32_t>() + r * k, static_cast<size_t>(k)},
                   args.log_probs.as<float>() + r * k);
    });
}

}  // namespace colonnade
