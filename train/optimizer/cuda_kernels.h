#pragma once
// The GPU side of train/optimizer/adamw.h and train/objectives/loss_sums.h, behind their checks. train/optimizer/cuda_kernels_without_cuda.cpp stands
// in where the build has no CUDA.

#include "train/objectives/loss_sums.h"
#include "train/optimizer/adamw.h"

namespace colonnade {

/// The numbers of one update, as both devices compute with them. Those that are near 0 or 1 come from double, not from
/// the others: 1 - 0.999f is wrong by 1e-5 of itself.
template <typename T>
struct AdamWCoefficients {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon;
    T keep;       ///< 1 - lr * decay
    T step_size;  ///< lr / (1 - beta1^t)
    T v_scale;    ///< 1 / sqrt(1 - beta2^t)
};

/// Elements whose squares one thread block of add_squares sums up.
constexpr int64_t norm_block_elements = int64_t{1} << 15;

/// Stream of the Philox numbers that round bf16 moments at step t: this + t. Of the block for elements 4 i to 4 i + 3
/// word j rounds element 4 i + j: m by its low half, v by its high half.
constexpr uint64_t moment_rounding_stream = uint64_t{0x6d6f6d65} << 32;

namespace cuda {

void add_squares(const Context& ctx, const AddSquares& args);
void clip_factor(const Context& ctx, const ClipFactor& args);
void adamw(const Context& ctx, const AdamWStep& args, const AdamWCoefficients<float>& coefficients);
void cast(const Context& ctx, const Tensor& to, const Tensor& from);
void add_loss_sums(const Context& ctx, const AddLossSums& args);

}  // namespace cuda
}  // namespace colonnade
