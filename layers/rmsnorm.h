#pragma once
// Root mean square norm (arXiv 1910.07467), optionally fused with the residual add before it:
//
//     s = in + delta (or in);   r = 1 / sqrt(mean(s^2) + eps);   out = s * r * w
//     d_s = r * (w * d_out - s * r^2 * mean(w * d_out * s));   d_w += sum over rows of d_out * s * r
//
// Rows are everything but the last dim: [tokens, hidden] for a block's norms, [tokens, heads, head_dim] for q/k norms.
// Rows may be strided; the last dim must be contiguous. The CPU takes sums in double. A GPU takes them in f32, of s as
// it is stored; rows there have at most 16384 elements.

#include "engine/device/context.h"
#include "layers/gradient.h"

namespace colonnade {

struct RmsNormForward {
    Tensor out;    ///< shape of in; may alias in
    Tensor rstd;   ///< sum_dtype [rows], saved for backward
    Tensor sum{};  ///< in + delta, where delta is given; may alias in
    Tensor in;
    Tensor delta{};  ///< residual branch, shape of in; or empty
    Tensor weight;   ///< [last dim]
    double eps;
};
void rmsnorm_forward(const Context& ctx, const RmsNormForward& args);

struct RmsNormBackward {
    Tensor din;                       ///< shape of in; may alias dout
    Grad din_mode = Grad::overwrite;  ///< accumulate: adds to a residual gradient that is already there
    Tensor dweight{};                 ///< sum_dtype [last dim], accumulated; or empty
    Tensor dout;
    Tensor in;  ///< what was normalised: `sum` of the forward where there was a delta
    Tensor rstd;
    Tensor weight;
    Tensor scratch{};  ///< GPU, with dweight: u8 [rmsnorm_scratch_bytes(last dim)] or more, 16-byte aligned
};
void rmsnorm_backward(const Context& ctx, const RmsNormBackward& args);

/// Device memory for the partial sums of a weight gradient; grows with the width.
int64_t rmsnorm_scratch_bytes(int64_t width);

}  // namespace colonnade
