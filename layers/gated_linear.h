#pragma once
// SwiGLU (layers/swiglu.h) fused with the linear layer next to it: forward with the gate_up projection before it,
// backward with the down projection after it. The two functions are not each other's inverse:
//
//     gate_up_swiglu_forward   gate_up = in W^T + bias, out = silu(gate) * up   linear_forward, then swiglu_forward
//     down_swiglu_backward     d_swiglu = d_out W, then d_gate and d_up         linear_backward, then swiglu_backward
//
// The backward of gate_up_swiglu_forward is swiglu_backward and linear_backward. Results equal those of the separate
// ops named on the right. On Hopper one kernel does both: forward writes `out` without reading gate_up again, and
// backward does not write d_swiglu.

#include "engine/device/context.h"
#include "layers/fp8_product.h"

namespace colonnade {

struct GateUpSwigluForward {
    Tensor out;       ///< [tokens, ffn]
    Tensor gate_up;   ///< [tokens, 2 * ffn]: gate, then up; saved
    Tensor in;        ///< [tokens, hidden]
    Tensor weight;    ///< [2 * ffn, hidden]
    Tensor bias{};    ///< [2 * ffn], or empty
    Fp8Linear fp8{};  ///< given: the product in e4m3, by the separate ops
};
void gate_up_swiglu_forward(const Context& ctx, const GateUpSwigluForward& args);

struct DownSwigluBackward {
    Tensor dgate_up;  ///< [tokens, 2 * ffn]; may alias gate_up
    Tensor dswiglu;   ///< scratch [tokens, ffn], for the separate ops
    Tensor dout;      ///< [tokens, hidden]
    Tensor weight;    ///< [hidden, ffn]
    Tensor gate_up;   ///< [tokens, 2 * ffn], saved by the forward
    Fp8Linear fp8{};  ///< given: the product in e4m3, by the separate ops
};
void down_swiglu_backward(const Context& ctx, const DownSwigluBackward& args);

}  // namespace colonnade
