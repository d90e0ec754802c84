#pragma once
// SwiGLU (arXiv 2002.05202): out = silu(gate) * up, silu(x) = x / (1 + exp(-x)), with gate and up side by side in one
// buffer, the output of one GEMM.
//
//     d_gate = d_out * up * s * (1 + gate * (1 - s)),  s = sigmoid(gate);   d_up = d_out * silu(gate)

#include "engine/device/context.h"

namespace colonnade {

struct SwigluForward {
    Tensor out;      ///< [tokens, ffn]
    Tensor gate_up;  ///< [tokens, 2 * ffn]: gate, then up
};
void swiglu_forward(const Context& ctx, const SwigluForward& args);

struct SwigluBackward {
    Tensor dgate_up;  ///< [tokens, 2 * ffn]; may alias gate_up
    Tensor dout;      ///< [tokens, ffn]
    Tensor gate_up;
};
void swiglu_backward(const Context& ctx, const SwigluBackward& args);

}  // namespace colonnade
