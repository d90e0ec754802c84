#pragma once
// Matrices of a frozen base in fewer bits. They are widened into a buffer before a product reads them,
// or a product in e4m3 takes the codes of fp8 as they are (layers/fp8_product.h).
//
//   nf4   QLoRA's 4 bits (arXiv 2305.14314), in the layout of bitsandbytes. 64 neighbours in memory share a scale, their
//         largest absolute value; an element is a quantile of the normal distribution times that. The scales less their
//         mean are stored in 8 bits, with an f32 for each 256 of them: 4.13 bits a weight in all.
//   fp8   8 bits, e4m3, in the layout of DeepSeek-V3: an f32 for each 128 x 128 block, its largest absolute value / 448.
//
// A weight is code * scale in f32, rounded to bf16, on every device: all of them compute with the same base. Values that
// are stored are rounded to bf16 first.

#include <array>
#include <span>

#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

enum class WeightCode : uint8_t { nf4, fp8 };
const char* name_of(WeightCode code);

struct QuantisedMatrix {
    static constexpr int64_t nf4_block = 64, nf4_scales = 256, fp8_block = 128;

    WeightCode code{};
    int64_t rows = 0, columns = 0;
    Tensor codes;   ///< u8: fp8 [rows, columns]; nf4 [ceil(rows * columns / 2)], the first of two in the high half
    Tensor scales;  ///< nf4: u8 [blocks]; fp8: f32 [ceil(rows / 128), ceil(columns / 128)]
    Tensor nested;  ///< nf4: f32 [ceil(blocks / 256) + 1], the scales of scales, and their mean last
    Tensor map;     ///< nf4: f32 [256], the numbers that codes of scales stand for

    static QuantisedMatrix lay_out(Arena& arena, const char* group, WeightCode code, int64_t rows, int64_t columns);
    int64_t numel() const { return rows * columns; }
    size_t bytes() const { return codes.bytes() + scales.bytes() + nested.bytes() + map.bytes(); }
};

struct Quantise {
    const QuantisedMatrix& out;  ///< in host memory, or on the GPU
    Tensor in;                   ///< [rows * columns], f32 or f64 in host memory
    const char* name = "";       ///< for errors
    Gpu* gpu = nullptr;
};
/// Throws Exit::data if a value is not finite.
void quantise(const Quantise& args);

/// Writes to `out` [rows, columns], in the dtype of weights on the context's device; contiguous.
struct Dequantise {
    Tensor out;
    const QuantisedMatrix& in;
};
void dequantise(const Context& ctx, const Dequantise& args);
/// Several matrices of the same columns, one below the other.
void dequantise_rows(const Context& ctx, const Tensor& out, std::span<const QuantisedMatrix> matrices);
int64_t rows_of(std::span<const QuantisedMatrix> matrices);

// --- The numbers ------------------------------------------------------------------------------------------------------

/// Quantiles of the normal distribution, scaled to [-1, 1] (appendix E of the paper).
inline constexpr float nf4_values[16] = {-1.0f,
                                         -0.6961928009986877f,
                                         -0.5250730514526367f,
                                         -0.39491748809814453f,
                                         -0.28444138169288635f,
                                         -0.18477343022823334f,
                                         -0.09105003625154495f,
                                         0.0f,
                                         0.07958029955625534f,
                                         0.16093020141124725f,
                                         0.24611230194568634f,
                                         0.33791524171829224f,
                                         0.44070982933044434f,
                                         0.5626170039176941f,
                                         0.7229568362236023f,
                                         1.0f};

/// The 256 numbers in ascending order by which bitsandbytes stores scales: its dynamic map.
const std::array<float, 256>& dynamic_map();

/// e4m3 without infinities: rounds to nearest even; beyond 448 becomes 448.
uint8_t e4m3_from_float(float value);
float float_from_e4m3(uint8_t code);

}  // namespace colonnade
