#pragma once
// The GPU side of train/optimizer/adamw.h, called after its checks. A build without CUDA links
// train/optimizer/adamw_without_cuda.cpp instead.

#include "train/optimizer/adamw.h"

namespace colonnade {

/// Coefficients of one update, the same on both devices. Those near 0 or 1 are computed in double, not from the others:
/// 1 - 0.999f has a relative error of 1e-5.
template <typename T>
struct AdamWCoefficients {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon;
    T keep;       ///< 1 - lr * decay
    T step_size;  ///< lr / (1 - beta1^t)
    T v_scale;    ///< 1 / sqrt(1 - beta2^t)
};

/// Number of elements whose squares one thread block of add_squares sums.
constexpr int64_t norm_block_elements = int64_t{1} << 15;

/// The Philox stream that rounds bf16 moments at step t is this + t. In the block for elements 4 i to 4 i + 3, word j
/// rounds element 4 i + j: its low half rounds m, its high half v.
constexpr uint64_t moment_rounding_stream = uint64_t{0x6d6f6d65} << 32;

namespace cuda {

void add_squares(const Context& ctx, const AddSquares& args);
void clip_factor(const Context& ctx, const ClipFactor& args);
void adamw(const Context& ctx, const AdamWStep& args, const AdamWCoefficients<float>& coefficients);
void cast(const Context& ctx, const Tensor& to, const Tensor& from);

}  // namespace cuda
}  // namespace colonnade
