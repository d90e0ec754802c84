#pragma once
// Gated linear unit (arXiv 2002.05202): gate_up = in W^T + bias, out = silu(gate) * up. The same as linear_forward and
// swiglu_forward one after the other. On Hopper one kernel does both: out costs no second reading of gate_up.
// And the way back into it from the linear layer that follows.

#include "engine/device/context.h"

namespace colonnade {

struct GatedLinearForward {
    Tensor out;      ///< [tokens, ffn]
    Tensor gate_up;  ///< [tokens, 2 * ffn]: gate, then up; for the backward
    Tensor in;       ///< [tokens, hidden]
    Tensor weight;   ///< [2 * ffn, hidden]
    Tensor bias{};   ///< [2 * ffn], or empty
};
/// The backward is that of the two, swiglu_backward and linear_backward.
void gated_linear_forward(const Context& ctx, const GatedLinearForward& args);

/// Through the linear layer that SwiGLU's output goes into, and SwiGLU: d_swiglu = d_out W, rounded to what tensors
/// hold, and from it d_gate and d_up. The same as the input's gradient by linear_backward and swiglu_backward one after
/// the other; on Hopper one kernel does both, and d_swiglu is not written.
struct SwigluLinearBackward {
    Tensor dgate_up;  ///< [tokens, 2 * ffn]; may alias gate_up
    Tensor dswiglu;   ///< [tokens, ffn]: room for it, where no one kernel does both; left undefined
    Tensor dout;      ///< [tokens, hidden]
    Tensor weight;    ///< [hidden, ffn]
    Tensor gate_up;
};
void swiglu_linear_backward(const Context& ctx, const SwigluLinearBackward& args);

}  // namespace colonnade
