#include "layers/quantised_matrix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
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

/// The index of the nearest of ascending numbers.
template <size_t count>
class Nearest {
  public:
    explicit Nearest(const float* values) {
        for (size_t i = 0; i + 1 < count; ++i)
            middles_[i] = static_cast<float>((static_cast<double>(values[i]) + values[i + 1]) / 2);
    }
    uint8_t operator()(float x) const {
        return static_cast<uint8_t>(std::ranges::lower_bound(middles_, x) - middles_.begin());
    }

  private:
    std::array<float, count - 1> middles_;
};

struct Scale {
    float largest = 0, inverse = 0;
};
Scale scale_of(const float* values, int64_t count) {
    float largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
    return {largest, largest > 0 ? 1 / largest : 0};
}

void quantise_nf4(const QuantisedMatrix& m, const float* values) {
    static const Nearest<16> nearest_value(nf4_values);
    static const Nearest<256> nearest_scale(dynamic_map().data());
    const int64_t count = m.numel(), blocks = blocks_of(count, nf4_block);
    std::vector<float> scales(static_cast<size_t>(blocks));
    auto* const codes = m.codes.as<uint8_t>();
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t begin = b * nf4_block, end = std::min(count, begin + nf4_block);
        const Scale scale = scale_of(values + begin, end - begin);
        scales[static_cast<size_t>(b)] = scale.largest;
        const auto code = [&](int64_t i) { return i < end ? nearest_value(values[i] * scale.inverse) : uint8_t{0}; };
        for (int64_t i = begin; i < end; i += 2) codes[i / 2] = static_cast<uint8_t>(code(i) << 4 | code(i + 1));
    }
    double sum = 0;
    for (const float s : scales) sum += s;
    const auto mean = static_cast<float>(blocks > 0 ? sum / static_cast<double>(blocks) : 0);
    auto* const nested = m.nested.as<float>();
    auto* const narrow = m.scales.as<uint8_t>();
    for (float& s : scales) s -= mean;
    for (int64_t g = 0; g * nf4_scales < blocks; ++g) {
        const int64_t begin = g * nf4_scales, end = std::min(blocks, begin + nf4_scales);
        const Scale scale = scale_of(scales.data() + begin, end - begin);
        nested[g] = scale.largest;
        for (int64_t b = begin; b < end; ++b) narrow[b] = nearest_scale(scales[static_cast<size_t>(b)] * scale.inverse);
    }
    nested[blocks_of(blocks, nf4_scales)] = mean;
    std::ranges::copy(dynamic_map(), m.map.as<float>());
}

void quantise_fp8(const QuantisedMatrix& m, const float* values) {
    const int64_t across = blocks_of(m.columns, fp8_block), down = blocks_of(m.rows, fp8_block);
    auto* const codes = m.codes.as<uint8_t>();
    auto* const scales = m.scales.as<float>();
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t y = 0; y < down; ++y)
        for (int64_t x = 0; x < across; ++x) {
            const int64_t first = x * fp8_block, width = std::min(fp8_block, m.columns - first);
            const int64_t end = std::min(m.rows, (y + 1) * fp8_block);
            float largest = 0;
            for (int64_t r = y * fp8_block; r < end; ++r)
                largest = std::max(largest, scale_of(values + r * m.columns + first, width).largest);
            const float scale = largest > 0 ? largest / 448 : 1;
            scales[y * across + x] = scale;
            for (int64_t r = y * fp8_block; r < end; ++r)
                for (int64_t c = first; c < first + width; ++c)
                    codes[r * m.columns + c] = e4m3_from_float(values[r * m.columns + c] / scale);
        }
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
    const int64_t count = values.numel();
    std::vector<float> rounded(static_cast<size_t>(count));
    int64_t wrong = 0;
    dispatch_float(values.dtype, [&]<typename T>() {
        const T* const from = args.in.as<T>();
#pragma omp parallel for schedule(static) reduction(+ : wrong)
        for (int64_t i = 0; i < count; ++i) {
            const float value = float_from_bf16(bf16_from_float(static_cast<float>(from[i])));
            rounded[static_cast<size_t>(i)] = value;
            wrong += !std::isfinite(value);
        }
    });
    if (wrong > 0)
        fail(Exit::data, "{}: {} of {} weights are not finite numbers; fewer bits cannot hold them", name, wrong,
             count);
    if (into.code == WeightCode::nf4)
        quantise_nf4(into, rounded.data());
    else
        quantise_fp8(into, rounded.data());
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
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
    const float size = std::abs(value);
    if (!(size <= std::numeric_limits<float>::max())) return sign | (size > 0 ? 0x7eu : 0x7fu);
    if (size < 0x1p-6f)  // multiples of 2^-9; 8 of them are the smallest normal number
        return static_cast<uint8_t>(sign | static_cast<uint8_t>(std::nearbyint(size * 0x1p9f)));
    const uint32_t rounded = (std::bit_cast<uint32_t>(size) + 0x7ffffu + (bits >> 20 & 1u)) >> 20;
    return static_cast<uint8_t>(sign | std::min<uint32_t>(rounded - ((127u - 7) << 3), 0x7eu));
}

float float_from_e4m3(uint8_t code) {
    const uint32_t sign = uint32_t{code & 0x80u} << 24, size = code & 0x7fu;
    if (size == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
    const float value =
        size < 8 ? static_cast<float>(size) * 0x1p-9f : std::bit_cast<float>((size << 20) + (120u << 23));
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

}  // namespace colonnade
