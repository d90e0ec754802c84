#pragma once
// Sums over rows on a GPU, in two stages and always in the same order: each CTA adds some rows and writes one row of
// partial sums to scratch memory; then the partial sums are added.

#include "engine/device/context.h"

namespace colonnade {

/// Maximum number of rows of partial sums: enough CTAs to fill any GPU. Narrow rows (q/k norm) need few registers, so
/// that more CTAs fit.
constexpr int64_t norm_partials(int64_t width) {
    return width <= 256 ? 640 : 320;
}
constexpr int64_t bias_partials = 64;

inline void check_partial_scratch(const char* op, const Tensor& scratch, int64_t bytes) {
    const bool held = scratch.data && scratch.dtype == DType::u8 && scratch.device == Device::cuda &&
                      scratch.contiguous() && scratch.numel() >= bytes &&
                      reinterpret_cast<uintptr_t>(scratch.data) % 16 == 0;
    require(held, "{}: scratch is {} on {}, expected [{}] u8 on cuda, aligned to 16 bytes", op, scratch, scratch.device,
            bytes);
}

namespace cuda {

/// sum[j] += partials[0][j] + ... + partials[count - 1][j]
struct AddPartialSums {
    float* sum;
    const float* partials;  ///< [count, width]
    int64_t count, width;
};
void add_partial_sums(const Context& ctx, const AddPartialSums& args);

}  // namespace cuda
}  // namespace colonnade
