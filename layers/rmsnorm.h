#pragma once
// Root mean square norm (arXiv 1910.07467), optionally fused with the residual add before it:
//
//     s = in + delta (or in);   r = 1 / sqrt(mean(s^2) + eps);   out = s * r * w
//     d_s = r * (w * d_out - s * r^2 * mean(w * d_out * s));   d_w += sum over rows of d_out * s * r
//
// A row is the last dim: [tokens, hidden] for a block's norms, [tokens, heads, head_dim] for q/k norms. Rows may be
// strided; the last dim must be contiguous. The CPU sums in double. A GPU sums in f32, over s as it is stored; there a
// row has at most 16384 elements.

#include "engine/device/context.h"
#include "layers/gradient.h"

namespace colonnade {

struct RmsNormForward {
    Tensor out;    ///< shape of in; may alias in
    Tensor rstd;   ///< sum_dtype [rows], saved for backward
    Tensor sum{};  ///< in + delta, needed if delta is given; may alias in
    Tensor in;
    Tensor delta{};  ///< residual branch, shape of in; or empty
    Tensor weight;   ///< [last dim]
    double eps;
};
void rmsnorm_forward(const Context& ctx, const RmsNormForward& args);

struct RmsNormBackward {
    Tensor din;                       ///< shape of in; may alias dout
    Grad din_mode = Grad::overwrite;  ///< accumulate: adds to the existing gradient of the residual
    Tensor dweight{};                 ///< sum_dtype [last dim], accumulated; or empty
    Tensor dout;
    Tensor in;  ///< the normalised tensor: `sum` of the forward if it had a delta, else its `in`
    Tensor rstd;
    Tensor weight;
    Tensor scratch{};  ///< needed on a GPU with dweight: u8, at least rmsnorm_scratch_bytes(last dim), 16-byte aligned
};
void rmsnorm_backward(const Context& ctx, const RmsNormBackward& args);

/// Device memory for the partial sums of a weight gradient; grows with the width.
int64_t rmsnorm_scratch_bytes(int64_t width);

}  // namespace colonnade
