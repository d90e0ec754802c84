#include "layers/quantised_matrix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

constexpr int64_t nf4_block = QuantisedMatrix::nf4_block, nf4_scales = QuantisedMatrix::nf4_scales,
                  fp8_block = QuantisedMatrix::fp8_block;

int64_t blocks_of(int64_t elements, int64_t block) {
    return (elements + block - 1) / block;
}

/// Seven decades, each in twice as many steps as the one below, on both sides of 0; and 0 and 1. In f32 like PyTorch.
std::array<float, 256> make_dynamic_map() {
    std::array<float, 256> map{};
    size_t n = 0;
    for (int decade = 0; decade < 7; ++decade) {
        const int steps = 1 << decade;
        const float step = 0.9f / static_cast<float>(steps);
        const auto border = [&](int i) {
            return i <= steps / 2 ? 0.1f + step * static_cast<float>(i) : 1.0f - step * static_cast<float>(steps - i);
        };
        const auto unit = static_cast<float>(std::pow(10.0, decade - 6));
        for (int i = 0; i < steps; ++i) {
            const float middle = unit * ((border(i) + border(i + 1)) / 2);
            map[n++] = middle;
            map[n++] = -middle;
        }
    }
    map[n++] = 0;
    map[n++] = 1;
    std::ranges::sort(map);
    return map;
}

/// The borders between the ranges of x to which each of ascending numbers is the nearest.
template <size_t count>
constexpr std::array<float, count - 1> middles_of(const float* values) {
    std::array<float, count - 1> middles{};
    for (size_t i = 0; i + 1 < count; ++i)
        middles[i] = static_cast<float>((static_cast<double>(values[i]) + values[i + 1]) / 2);
    return middles;
}

constexpr uint32_t infinity_bits = 0x7f800000;
uint32_t size_bits(float value) {
    return std::bit_cast<uint32_t>(value) & 0x7fffffffu;
}

/// The largest absolute value; NaN if there is one. Sizes compare as integers do, several at a time.
template <typename T>
float largest_of(const T* values, int64_t count) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, size_bits(static_cast<float>(values[i])));
    return std::bit_cast<float>(largest);
}

float to_bf16(float value) {
    return float_from_bf16(bf16_from_float(value));
}
/// The same for what is finite.
float finite_to_bf16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    return std::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

float inverse_of(float largest) {
    return largest > 0 ? 1 / largest : 0;
}

/// Codes of a block, two in a byte. A code is the number of middles below x, which the compiler counts for several x at a
/// time: a twentieth of the time of a search, whose branches a processor cannot guess.
template <typename T>
void nf4_codes(uint8_t* codes, const T* values, float inverse, int64_t count) {
    static constexpr auto middles = middles_of<16>(nf4_values);
    int32_t below[nf4_block] = {};
    for (int64_t i = 0; i < count; ++i) {
        const float x = finite_to_bf16(static_cast<float>(values[i])) * inverse;
        int32_t n = 0;
        for (const float middle : middles) n += middle < x;
        below[i] = n;
    }
    for (int64_t i = 0; i < count; i += 2) codes[i / 2] = static_cast<uint8_t>(below[i] << 4 | below[i + 1]);
}

/// Codes of scales less their mean.
void nest_scales(const QuantisedMatrix& m, const std::vector<float>& scales) {
    static const auto middles = middles_of<256>(dynamic_map().data());
    const int64_t blocks = std::ssize(scales), groups = blocks_of(blocks, nf4_scales);
    double sum = 0;
    for (const float s : scales) sum += s;
    const auto mean = static_cast<float>(blocks > 0 ? sum / static_cast<double>(blocks) : 0);
    auto* const nested = m.nested.as<float>();
    auto* const narrow = m.scales.as<uint8_t>();
#pragma omp parallel for schedule(static)
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t begin = g * nf4_scales, count = std::min(blocks - begin, nf4_scales);
        float rest[nf4_scales] = {};
        for (int64_t i = 0; i < count; ++i) rest[i] = scales[static_cast<size_t>(begin + i)] - mean;
        nested[g] = largest_of(rest, count);
        const float inverse = inverse_of(nested[g]);
        // Searches in halves, all of them a step at a time: none waits for another, and no branch is guessed.
        uint32_t below[nf4_scales] = {};
        for (uint32_t half = 128; half > 0; half /= 2)
            for (int64_t i = 0; i < nf4_scales; ++i)
                below[i] += half * static_cast<uint32_t>(middles[below[i] + half - 1] < rest[i] * inverse);
        std::copy_n(below, count, narrow + begin);
    }
    nested[groups] = mean;
    std::ranges::copy(dynamic_map(), m.map.as<float>());
}

/// Returns whether all weights are finite in bf16; without that the codes mean nothing.
template <typename T>
bool quantise_nf4(const QuantisedMatrix& m, const T* values) {
    const int64_t count = m.numel(), blocks = blocks_of(count, nf4_block);
    std::vector<float> scales(static_cast<size_t>(blocks));
    auto* const codes = m.codes.as<uint8_t>();
    bool finite = true;
#pragma omp parallel for schedule(static) reduction(&& : finite)
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t begin = b * nf4_block, size = std::min(count - begin, nf4_block);
        const float largest = to_bf16(largest_of(values + begin, size));
        finite = finite && std::isfinite(largest);
        scales[static_cast<size_t>(b)] = largest;
        nf4_codes(codes + begin / 2, values + begin, inverse_of(largest), size);
    }
    nest_scales(m, scales);
    return finite;
}

/// e4m3_from_float, inline. All cases are computed and one is chosen, so that the compiler codes several numbers at a time.
inline uint8_t e4m3_of(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value), size = size_bits(value);
    // Codes below 8 are multiples of 2^-9, and so are floats from 2^14 to 2^15: this addition rounds to them.
    const uint32_t small =
        std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0x1p14f) - std::bit_cast<uint32_t>(0x1p14f);
    const uint32_t normal = ((size + 0x7ffffu + (size >> 20 & 1u)) >> 20) - ((127u - 7) << 3);
    const uint32_t code = size < std::bit_cast<uint32_t>(0x1p-6f) ? small : std::min(normal, 0x7eu);
    return static_cast<uint8_t>((bits >> 24 & 0x80u) | (size > infinity_bits ? 0x7fu : code));
}

template <typename T>
void e4m3_codes(uint8_t* codes, const T* values, float scale, int64_t count) {
    for (int64_t i = 0; i < count; ++i) codes[i] = e4m3_of(finite_to_bf16(static_cast<float>(values[i])) / scale);
}

/// Several blocks beside each other, whose rows are long enough for the processor to read ahead, and which its cache still
/// has when it reads them again.
constexpr int64_t fp8_group = 8;

/// A group of blocks. Returns whether all weights are finite in bf16.
template <typename T>
bool quantise_fp8(uint8_t* codes, float* scales, const T* values, int64_t height, int64_t width, int64_t stride) {
    bool finite = true;
    float largest[fp8_group] = {};
    const auto each_block = [&](auto&& apply) {
        for (int64_t r = 0; r < height; ++r)
            for (int64_t c = 0; c < width; c += fp8_block)
                apply(c / fp8_block, r * stride + c, std::min(fp8_block, width - c));
    };
    each_block([&](int64_t b, int64_t at, int64_t count) {
        const float here = to_bf16(largest_of(values + at, count));
        finite = finite && std::isfinite(here);
        largest[b] = std::max(largest[b], here);
    });
    for (int64_t b = 0; b < blocks_of(width, fp8_block); ++b) scales[b] = largest[b] > 0 ? largest[b] / 448 : 1;
    each_block([&](int64_t b, int64_t at, int64_t count) { e4m3_codes(codes + at, values + at, scales[b], count); });
    return finite;
}

template <typename T>
bool quantise_fp8(const QuantisedMatrix& m, const T* values) {
    constexpr int64_t group_columns = fp8_group * fp8_block;
    const int64_t across = blocks_of(m.columns, fp8_block);
    bool finite = true;
#pragma omp parallel for collapse(2) schedule(static) reduction(&& : finite)
    for (int64_t r = 0; r < m.rows; r += fp8_block)
        for (int64_t c = 0; c < m.columns; c += group_columns) {
            const int64_t at = r * m.columns + c;
            const bool here = quantise_fp8(
                m.codes.as<uint8_t>() + at, m.scales.as<float>() + r / fp8_block * across + c / fp8_block, values + at,
                std::min(fp8_block, m.rows - r), std::min(group_columns, m.columns - c), m.columns);
            finite = finite && here;
        }
    return finite;
}

template <typename T>
int64_t count_not_finite(const T* values, int64_t count) {
    int64_t wrong = 0;
#pragma omp parallel for schedule(static) reduction(+ : wrong)
    for (int64_t i = 0; i < count; ++i) wrong += !std::isfinite(to_bf16(static_cast<float>(values[i])));
    return wrong;
}

/// Rounds twice, as bitsandbytes does: no fused multiply-add.
float nf4_scale(const QuantisedMatrix& m, int64_t block) {
    const float* const nested = m.nested.as<float>();
    const double scale = m.map.as<float>()[m.scales.as<uint8_t>()[block]];
    return static_cast<float>(scale * nested[block / nf4_scales]) + nested[m.nested.numel() - 1];
}

template <typename T>
void dequantise_nf4(T* out, const QuantisedMatrix& m) {
    const int64_t count = m.numel(), blocks = blocks_of(count, nf4_block);
    const auto* const codes = m.codes.as<uint8_t>();
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
        const float scale = nf4_scale(m, b);
        T values[16];
        for (int k = 0; k < 16; ++k) values[k] = float_from_bf16(bf16_from_float(nf4_values[k] * scale));
        const int64_t end = std::min(count, (b + 1) * nf4_block);
        for (int64_t i = b * nf4_block; i < end; i += 2) {
            const uint8_t pair = codes[i / 2];
            out[i] = values[pair >> 4];
            if (i + 1 < end) out[i + 1] = values[pair & 15];
        }
    }
}

template <typename T>
void dequantise_fp8(T* out, const QuantisedMatrix& m) {
    const int64_t across = blocks_of(m.columns, fp8_block);
    const auto* const codes = m.codes.as<uint8_t>();
    const auto* const scales = m.scales.as<float>();
    std::array<float, 256> values{};
    for (int k = 0; k < 256; ++k) values[static_cast<size_t>(k)] = float_from_e4m3(static_cast<uint8_t>(k));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < m.rows; ++r)
        for (int64_t c = 0; c < m.columns; ++c) {
            const float scale = scales[r / fp8_block * across + c / fp8_block];
            out[r * m.columns + c] = float_from_bf16(bf16_from_float(values[codes[r * m.columns + c]] * scale));
        }
}

}  // namespace

const char* name_of(WeightCode code) {
    return code == WeightCode::nf4 ? "nf4" : "fp8";
}

QuantisedMatrix QuantisedMatrix::lay_out(Arena& arena, const char* group, WeightCode code, int64_t rows,
                                         int64_t columns) {
    QuantisedMatrix m{
        .code = code, .rows = rows, .columns = columns, .codes = {}, .scales = {}, .nested = {}, .map = {}};
    if (code == WeightCode::fp8) {
        m.codes = arena.tensor(group, DType::u8, {rows, columns});
        m.scales = arena.tensor(group, DType::f32, {blocks_of(rows, fp8_block), blocks_of(columns, fp8_block)});
        return m;
    }
    const int64_t blocks = blocks_of(rows * columns, nf4_block);
    m.codes = arena.tensor(group, DType::u8, {blocks_of(rows * columns, 2)});
    m.scales = arena.tensor(group, DType::u8, {blocks});
    m.nested = arena.tensor(group, DType::f32, {blocks_of(blocks, nf4_scales) + 1});
    m.map = arena.tensor(group, DType::f32, {256});
    return m;
}

const std::array<float, 256>& dynamic_map() {
    static const std::array<float, 256> map = make_dynamic_map();
    return map;
}

void quantise(const Quantise& args) {
    const auto& [into, values, name, gpu] = args;
    require(values.numel() == into.numel() && values.device == Device::cpu, "quantise: {} for {} x {}", values,
            into.rows, into.columns);
    if (gpu) {
        Arena memory(Device::cpu, into.bytes() + 4 * Arena::alignment);
        const QuantisedMatrix host = QuantisedMatrix::lay_out(memory, "", into.code, into.rows, into.columns);
        quantise({.out = host, .in = values, .name = name});
        for (const auto part :
             {&QuantisedMatrix::codes, &QuantisedMatrix::scales, &QuantisedMatrix::nested, &QuantisedMatrix::map})
            if (!(host.*part).empty()) gpu->upload(into.*part, (host.*part).data);
        return;
    }
    dispatch_float(values.dtype, [&]<typename T>() {
        const T* const from = args.in.as<T>();
        if (into.code == WeightCode::nf4 ? quantise_nf4(into, from) : quantise_fp8(into, from)) return;
        fail(Exit::data, "{}: {} of {} weights are not finite numbers; fewer bits cannot hold them", args.name,
             count_not_finite(from, into.numel()), into.numel());
    });
}

void dequantise(const Context& ctx, const Dequantise& args) {
    const QuantisedMatrix& m = args.in;
    const ShapeCheck check(ctx, "dequantise", args.out.dtype);
    check("out", args.out, {m.rows, m.columns});
    require(args.out.contiguous(), "dequantise: out {} is not contiguous", args.out);
    require(m.codes.device == ctx.device, "dequantise: codes on {} for a context on {}", m.codes.device, ctx.device);
    const PhaseTimer timer(ctx, "dequantise");
    if (ctx.device == Device::cuda) return cuda::dequantise(ctx, args);
    dispatch_float(args.out.dtype, [&]<typename T>() {
        if (m.code == WeightCode::nf4)
            dequantise_nf4(args.out.as<T>(), m);
        else
            dequantise_fp8(args.out.as<T>(), m);
    });
}

int64_t rows_of(std::span<const QuantisedMatrix> matrices) {
    int64_t rows = 0;
    for (const QuantisedMatrix& m : matrices) rows += m.rows;
    return rows;
}

void dequantise_rows(const Context& ctx, const Tensor& out, std::span<const QuantisedMatrix> matrices) {
    int64_t row = 0;
    for (const QuantisedMatrix& m : matrices) {
        dequantise(ctx, {.out = out.slice(0, row, row + m.rows), .in = m});
        row += m.rows;
    }
}

uint8_t e4m3_from_float(float value) {
    return e4m3_of(value);
}

float float_from_e4m3(uint8_t code) {
    const uint32_t sign = uint32_t{code & 0x80u} << 24, size = code & 0x7fu;
    if (size == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
    const float value =
        size < 8 ? static_cast<float>(size) * 0x1p-9f : std::bit_cast<float>((size << 20) + (120u << 23));
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

}  // namespace colonnade
