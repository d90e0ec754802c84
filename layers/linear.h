#pragma once
// Linear layer: out = in W^T + bias. Weights are [out_features, in_features], as Hugging Face stores them.
//
//     d_in = d_out W;   d_W (+)= d_out^T in;   d_bias += column sums of d_out

#include "engine/device/context.h"
#include "layers/fp8_product.h"
#include "layers/gradient.h"

namespace colonnade {

struct LinearForward {
    Tensor out;       ///< [tokens, out_features]
    Tensor in;        ///< [tokens, in_features]
    Tensor weight;    ///< [out_features, in_features]
    Tensor bias{};    ///< [out_features], or empty
    Fp8Linear fp8{};  ///< given: in e4m3
};
void linear_forward(const Context& ctx, const LinearForward& args);

struct LinearBackward {
    Tensor din{};  ///< [tokens, in_features], or empty
    Grad din_mode = Grad::overwrite;
    Tensor dweight{};  ///< sum_dtype [out_features, in_features], contiguous; or empty (frozen)
    Grad dweight_mode = Grad::accumulate;
    Tensor dbias{};  ///< sum_dtype [out_features], accumulated; or empty
    Tensor dout;     ///< [tokens, out_features]
    Tensor in{};     ///< saved input
    Tensor weight;
    Fp8Linear fp8{};   ///< given: d_in in e4m3, for which it is overwritten
    Tensor scratch{};  ///< needed on a GPU with dbias: u8, at least linear_scratch_bytes(out_features), 16-byte aligned
};
void linear_backward(const Context& ctx, const LinearBackward& args);

/// Device memory for the partial sums of a bias gradient.
int64_t linear_scratch_bytes(int64_t out_features);

}  // namespace colonnade
