#pragma once
// Rotary position embedding (arXiv 2104.09864) from explicit positions, in Hugging Face's half-split layout: element i
// of a head is rotated together with element i + head_dim / 2.
//
//     out_i = x_i cos - x_{i+d/2} sin,   out_{i+d/2} = x_{i+d/2} cos + x_i sin,   angle = position * frequency_i
//
// The backward is the rotation by the negative angle.

#include <vector>

#include "engine/device/context.h"

namespace colonnade {

/// Scaling of the frequencies 1 / theta^(2i/d). Formulas as in transformers' modeling_rope_utils:
/// linear (f / factor), llama3 (smooth interpolation between two wavelengths), yarn (arXiv 2309.00071).
struct RopeScaling {
    enum class Kind { none, linear, llama3, yarn } kind = Kind::none;
    double factor = 1;
    double original_max_position = 0;                  ///< llama3, yarn
    double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
    double beta_fast = 32, beta_slow = 1;              ///< yarn
    double attention_factor = 0;  ///< yarn; 0: derived (0.1 ln(factor) + 1, or from mscale and mscale_all_dim)
    double mscale = 0, mscale_all_dim = 0;  ///< yarn; 0: not given
    bool truncate = true;                   ///< yarn: round the correction range to whole dims
};

struct RopeFrequencies {
    std::vector<double> inverse;  ///< [head_dim / 2]
    double attention_factor = 1;  ///< multiplies cos and sin
};
RopeFrequencies rope_frequencies(int64_t head_dim, double theta, const RopeScaling& scaling);

struct RopeAngles {
    Tensor cos, sin;   ///< sum_dtype of the rotated tensor, [tokens, head_dim / 2]
    Tensor positions;  ///< i32 [tokens]
    const RopeFrequencies& frequencies;
};
/// Called once per batch, for all layers. Computed in double, rounded to the dtype of cos. On a GPU head_dim is at most
/// 256.
void rope_angles(const Context& ctx, const RopeAngles& args);

struct RopeApply {
    Tensor x;         ///< [tokens, heads, head_dim], rotated in place; may be a strided slice of packed qkv
    Tensor cos, sin;  ///< sum_dtype [tokens, head_dim / 2]
    bool backward = false;
};
void rope_apply(const Context& ctx, const RopeApply& args);

}  // namespace colonnade
