#pragma once
// SwiGLU of one element, for kernels.

namespace colonnade::cuda {

/// 1 / (1 + exp(-x)) to a few ulp; 0 below -87.3, because exp(-x) is then not a normal float.
__device__ inline float sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

/// silu(gate) * up; the same bits in every kernel.
__device__ inline float swiglu(float gate, float up) {
    return gate * sigmoid(gate) * up;
}

struct SwigluGradient {
    float gate, up;
};
/// Gradients of gate and up from that of the output; the same bits in every kernel.
__device__ inline SwigluGradient swiglu_gradient(float gate, float up, float dout) {
    const float s = sigmoid(gate);
    return {dout * up * s * (1 + gate * (1 - s)), dout * gate * s};
}

}  // namespace colonnade::cuda
