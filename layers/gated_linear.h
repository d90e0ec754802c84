#pragma once
// Gated linear unit (arXiv 2002.05202): gate_up = in W^T + bias, out = silu(gate) * up. The same as linear_forward and
// swiglu_forward one after the other. On Hopper one kernel does both: out costs no second reading of gate_up.

#include "engine/context.h"

namespace colonnade {

struct GatedLinearForward {
    Tensor out;      ///< [tokens, ffn]
    Tensor gate_up;  ///< [tokens, 2 * ffn]: gate, then up; for the backward
    Tensor in;       ///< [tokens, hidden]
    Tensor weight;   ///< [2 * ffn, hidden]
    Tensor bias;     ///< [2 * ffn], or empty
};
/// The backward is that of the two, swiglu_backward and linear_backward.
void gated_linear_forward(const Context& ctx, const GatedLinearForward& args);

}  // namespace colonnade
