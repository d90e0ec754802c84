#pragma once
// Matrix products of linear layers in e4m3: operands of 8 bits, which a Hopper GPU multiplies at twice the rate of bf16.
//
//     out = in W^T + bias          d_in = d_out W (Fp8Product::transposed)
//
// Operands are rounded to e4m3 times a scale: one scale for each 128 neighbours in a row of `in`, one for each 128 x 128
// block of the weight, as DeepSeek-V3 does (arXiv 2412.19437, 3.3.2). A scale is the least power of two with which the
// largest of its elements is at most 448, so that scaling rounds nothing. What a token is rounded to depends on no other
// token; but the last bit of a number may decide about a rounding of 1/16 of it. Products are exact, sums are in f32. If an element is not finite, neither is what it adds to.
//
//     GPU   cuBLASLt 12.9 or newer on compute capability 9.0; both sizes of a weight are multiples of 16
//     CPU   the same numbers in the dtype of the operands, by the product of that dtype: an emulation

#include <span>

#include "engine/device/arena.h"
#include "engine/device/context.h"
#include "engine/device/host_device.h"
#include "layers/quantised_matrix.h"

namespace colonnade {

/// Memory for the rounded operands of one product. GPU: codes and scales; CPU: numbers.
struct Fp8Room {
    Tensor rows, row_scales;
    Tensor weight, weight_scales;
    Tensor last_rows;  ///< GPU: for the last rows of `out`, if their number is not a multiple of four

    /// The largest of what will be multiplied.
    struct Largest {
        int64_t rows = 0, elements = 0;  ///< of `in`
        int64_t columns = 0;             ///< of `in` and of `out`
        int64_t weight = 0;              ///< elements
    };
    static Fp8Room lay_out(Arena& arena, const char* name, DType dtype, const Largest& largest);
};

/// That a linear layer multiplies in e4m3, and with what.
struct Fp8Linear {
    const Fp8Room* room = nullptr;  ///< null: it does not
    /// If given, one below the other, the weight: their codes and scales are taken as they are (fp8_takes()), and the
    /// tensor of the weight is a shape without memory.
    std::span<const QuantisedMatrix> matrices{};
    explicit operator bool() const { return room; }
};

struct Fp8Product {
    Tensor out;               ///< [tokens, out_features]; transposed: [tokens, in_features]
    Tensor in;                ///< [tokens, in_features]; transposed: [tokens, out_features]
    Tensor weight;            ///< [out_features, in_features], contiguous
    bool transposed = false;  ///< multiply by W instead of W^T
    Tensor bias{};            ///< [columns of out], or empty
    Fp8Linear fp8;
};
void fp8_product(const Context& ctx, const Fp8Product& args);

/// Whether the matrices are in e4m3 and their scales are those of 128 x 128 blocks of all of them together.
bool fp8_takes(std::span<const QuantisedMatrix> matrices);

/// Why a GPU of this compute capability (90 for 9.0), or the libraries of this build, cannot do it; empty if they can.
std::string why_no_fp8_products(int compute_capability);

// --- The numbers ------------------------------------------------------------------------------------------------------

constexpr int64_t fp8_neighbours = 128;  ///< elements of a row that share a scale

/// The scale of a group as the bits of an f32. `largest`: the bits of the largest absolute value in it. NaN if that is not
/// finite.
COLONNADE_HOST_DEVICE inline uint32_t fp8_scale_bits(uint32_t largest) {
    if (largest >= 0x7f800000u) return 0x7fffffffu;
    // 448 is 1.75 * 2^8.
    const int exponent = static_cast<int>(largest >> 23) - 8 + ((largest & 0x7fffffu) > 0x600000u ? 1 : 0);
    return static_cast<uint32_t>(exponent < 1 ? 1 : exponent) << 23;
}
/// One over such a scale, as bits; of NaN any number.
COLONNADE_HOST_DEVICE inline uint32_t fp8_inverse_bits(uint32_t scale) {
    return (254u << 23) - scale;
}

}  // namespace colonnade
