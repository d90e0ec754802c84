#pragma once
// The norm of all gradients, and AdamW with decoupled weight decay (arXiv 1711.05101), on the flat buffers:
//
//     g = clip factor * gradient
//     m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//     w = w (1 - lr * decay) - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
//
// Matrices decay, norms and biases do not (Parameter::decay). Norm and clip factor stay on the device, so that the host
// does not wait between gradients and update. An update that must not happen, because the loss or the norm is not
// finite or is beyond a limit, gets the clip factor NaN, and then changes nothing.
//
// On a GPU the weights are fp32 in two halves: the bf16 numbers that the model reads, and the 16 bits below them
// (SplitFloat, engine/device/float16.h). The moments may be bf16 there, or on both devices 8 bits
// (train/optimizer/moment_codes.h). Bytes of memory traffic for an element on a GPU: 12 for weight and gradient, and for
// the moments 16 (f32), 8 (bf16) or 4.25 (8 bits). An update changes v by about (1 - beta2) v, which is often less than half the distance between
// bf16 numbers (2^-9 v or more), so that rounding to nearest would never change v. Therefore moments are rounded
// stochastically, without bias. The random numbers are a function of seed, step and element: a resumed run gets the
// same bits.

#include <limits>

#include "engine/device/context.h"
#include "train/model/parameters.h"

namespace colonnade {

/// Squares of gradients, in double: sums over neighbouring elements, then the sum of these. Gradients may be in several
/// places, and the result has the same bits in every run, for any number of threads.
struct SquareSums {
    Tensor sums;       ///< f64 [square_sum_count(elements)], overwritten
    Tensor gradients;  ///< flat, f32 or f64; on a GPU f32, a multiple of 4 elements
};
void sum_squares(const Context& ctx, const SquareSums& args);
int64_t square_sum_count(int64_t elements);
struct AddUp {
    Tensor total;  ///< f64 [1], added to
    Tensor sums;   ///< f64 [count]
};
void add_up(const Context& ctx, const AddUp& args);
/// Limits beyond which an update must not happen.
struct UpdateLimits {
    double loss = std::numeric_limits<double>::infinity();           ///< of the mean loss of the step
    double gradient_norm = std::numeric_limits<double>::infinity();  ///< before clipping
    bool hold = false;  ///< a step beyond a limit also holds back all later updates
};
struct ClipFactor {
    /// f64 [2]. In: the sum of squares, unused. Out: their root, the norm, and the clip factor
    /// min(1, max_norm / (norm + 1e-6)), NaN if the norm is not finite.
    Tensor out;
    double max_norm;  ///< 0: the factor is 1
    UpdateLimits limits{};
    Tensor loss{};  ///< f64 [2]: the loss and what it is divided by; or empty
    /// f64 [1], or empty. Not 0: updates are held back. Set if the loss or the norm is not finite, and if limits.hold
    /// says so, because on a GPU the next step may be enqueued before the host knows of this one.
    Tensor held{};
};
void clip_factor(const Context& ctx, const ClipFactor& args);

struct AdamWSettings {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};

/// The tensors are elements [begin, begin + n) of the flat buffers: all elements, or a slice.
struct AdamWStep {
    Tensor weights;               ///< updated: f32 or f64; on a GPU bf16, the upper halves
    Tensor low{};                 ///< GPU: i16, updated: the lower halves
    Tensor m, v;                  ///< updated: dtype of weights; on a GPU f32 or bf16; u8: codes (not with f64)
    Tensor m_units{}, v_units{};  ///< with u8: f32 [n / 64], updated
    Tensor gradients;             ///< dtype of weights; on a GPU f32
    Tensor clip;                  ///< f64 [2]: ClipFactor::out. A factor of NaN: nothing changes
    Tensor decay_map{};           ///< GPU: i32, decay_map(parameters), whole
    const ParameterList& parameters;
    int64_t begin = 0;  ///< a multiple of 64
    const AdamWSettings& settings;
    double learning_rate;
    int64_t step;       ///< 1 for the first update
    uint64_t seed = 0;  ///< for rounding bf16 and 8-bit moments
};
void adamw(const Context& ctx, const AdamWStep& args);

/// Says for kernels which elements of the flat buffers decay: bit b of word w stands for the 64 elements that begin at
/// 2048 w + 64 b. Parameters that differ in decay never share 64 elements. Gaps between parameters hold zeros and keep
/// them.
std::vector<int32_t> decay_map(const ParameterList& parameters);
int64_t decay_map_words(int64_t elements);

}  // namespace colonnade
