#pragma once
// The GPU side of train/optimizer/adamw.h, called after its checks. A build without CUDA links
// train/optimizer/adamw_without_cuda.cpp instead.

#include <cmath>

#include "engine/device/host_device.h"
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

/// The update of one element with 8-bit moments, rounded in the same way on every device.
COLONNADE_HOST_DEVICE inline void update_in_f32(float& w, float& m, float& v, float gradient,
                                                const AdamWCoefficients<float>& c) {
    m = fmaf(c.beta1, m, c.one_minus_beta1 * gradient);
    v = fmaf(c.beta2, v, c.one_minus_beta2 * gradient * gradient);
    w = fmaf(-c.step_size, m / fmaf(sqrtf(v), c.v_scale, c.epsilon), w * c.keep);
}

/// Elements of one of the sums of sum_squares; on a GPU those of a thread block.
constexpr int64_t norm_block_elements = int64_t{1} << 15;

/// The Philox stream that rounds bf16 and 8-bit moments at step t is this + t. In the block for elements 4 i to 4 i + 3, word j
/// rounds element 4 i + j: its low half rounds m, its high half v.
constexpr uint64_t moment_rounding_stream = uint64_t{0x6d6f6d65} << 32;

/// ClipFactor with plain pointers; `loss` and `held` may be null.
COLONNADE_HOST_DEVICE inline void finish_norm(double* out, const double* loss, double* held, double max_norm,
                                              const UpdateLimits& limits) {
    const double norm = sqrt(out[0]);
    const double mean = loss && loss[1] > 0 ? loss[0] / loss[1] : 0;
    const bool finite = norm - norm == 0 && (!loss || loss[0] - loss[0] == 0);
    const bool within = norm <= limits.gradient_norm && mean <= limits.loss;
    const bool held_before = held && *held != 0;
    if (held && (!finite || (!within && limits.hold))) *held = 1;
    // The same as torch.nn.utils.clip_grad_norm_.
    const double clipped = max_norm / (norm + 1e-6);
    const double factor = max_norm > 0 && clipped < 1 ? clipped : 1;
    out[0] = norm;
    out[1] = finite && within && !held_before ? factor : static_cast<double>(NAN);
}

namespace cuda {

void sum_squares(const Context& ctx, const SquareSums& args);
void add_up(const Context& ctx, const AddUp& args);
void clip_factor(const Context& ctx, const ClipFactor& args);
void adamw(const Context& ctx, const AdamWStep& args, const AdamWCoefficients<float>& coefficients);

}  // namespace cuda
}  // namespace colonnade
