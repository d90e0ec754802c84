#pragma once
// The norm of all gradients, and AdamW with decoupled weight decay (arXiv 1711.05101), on the flat buffers:
//
//     g = clip factor * gradient
//     m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//     w = w (1 - lr * decay) - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
//
// Matrices decay, norms and biases do not (Parameter::decay). Norm and clip factor stay on the device, so the host need
// not wait between gradients and update: where the norm is not finite the update changes nothing.
//
// On a GPU the weights are fp32 masters, and their bf16 working copy is written in the same pass over memory. There the
// moments may be bf16. An update changes v by about (1 - beta2) v, often less than half the step between bf16 numbers
// (2^-9 v or more): rounding to nearest would leave v where it is. So they are rounded up or down at random, right on
// average. The random numbers are a function of seed, step and element: a resumed run gets the same bits.

#include "engine/device/context.h"
#include "train/model/parameters.h"

namespace colonnade {

struct GradientNorm {
    Tensor out;        ///< f64 [2]: Euclidean norm, then the clip factor min(1, max_norm / (norm + 1e-6))
    Tensor gradients;  ///< flat, f32 or f64; on a GPU f32, a multiple of 4 elements
    double max_norm;   ///< 0: the factor is 1
    Tensor scratch;    ///< GPU: u8 [gradient_norm_scratch_bytes(elements)]
};
/// Summed in double over fixed blocks: the same bits in every run, for any number of threads. Where the norm is not
/// finite the factor means nothing.
void gradient_norm(const Context& ctx, const GradientNorm& args);
int64_t gradient_norm_scratch_bytes(int64_t elements);

/// The two halves of gradient_norm, for gradients that lie in slices or on several ranks: squares add up, the norm comes
/// last.
struct AddSquares {
    Tensor sum;        ///< f64 [1], added to
    Tensor gradients;  ///< as in GradientNorm
    Tensor scratch;    ///< as in GradientNorm
};
void add_squares(const Context& ctx, const AddSquares& args);
struct ClipFactor {
    Tensor out;  ///< f64 [2]: the sum of squares and anything; becomes what GradientNorm::out is
    double max_norm;
};
void clip_factor(const Context& ctx, const ClipFactor& args);

struct AdamWSettings {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};

/// The tensors are elements [begin, begin + n) of the flat buffers, all of them or a slice.
struct AdamWStep {
    Tensor weights;    ///< updated: f32 or f64; on a GPU f32
    Tensor copy;       ///< GPU, or empty: bf16, becomes the new weights rounded to nearest
    Tensor m, v;       ///< updated: dtype of weights; on a GPU bf16, too
    Tensor gradients;  ///< dtype of weights
    Tensor clip;       ///< f64 [2]: GradientNorm::out
    Tensor decay_map;  ///< GPU: i32, decay_map(parameters), whole
    const ParameterList& parameters;
    int64_t begin = 0;  ///< a multiple of 64
    const AdamWSettings& settings;
    double learning_rate;
    int64_t step;       ///< 1 for the first update
    uint64_t seed = 0;  ///< of the rounding of bf16 moments
};
void adamw(const Context& ctx, const AdamWStep& args);

/// Which elements of the flat buffers decay, for kernels: bit b of word w stands for the 64 elements from 2048 w + 64 b
/// on. Parameters that differ in it never share 64 elements; the gaps between parameters hold zeros, and stay so.
std::vector<int32_t> decay_map(const ParameterList& parameters);
int64_t decay_map_words(int64_t elements);

/// GPU: f32 to bf16, rounded to nearest: the working copy of weights that were loaded. Both flat, of equally many
/// elements, a multiple of 4.
void cast(const Context& ctx, const Tensor& to, const Tensor& from);

}  // namespace colonnade
