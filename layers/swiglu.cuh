#pragma once
// SwiGLU of one element, for kernels.

namespace colonnade::cuda {

/// 1 / (1 + exp(-x)) to a few units of f32; 0 below -87.3, where exp(-x) is no normal float.
__device__ inline float sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

/// silu(gate) * up; the same bits wherever it is worked out.
__device__ inline float swiglu(float gate, float up) {
    return gate * sigmoid(gate) * up;
}

struct SwigluGradient {
    float gate, up;
};
/// From that of the output; the same bits too.
__device__ inline SwigluGradient swiglu_gradient(float gate, float up, float dout) {
    const float s = sigmoid(gate);
    return {dout * up * s * (1 + gate * (1 - s)), dout * gate * s};
}

}  // namespace colonnade::cuda
