#include "layers/fp8_product.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/device/device_memory.h"
#include "engine/device/gemm.h"
#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

constexpr int64_t group = fp8_neighbours;

int64_t groups_of(int64_t elements) {
    return (elements + group - 1) / group;
}
int64_t whole_fours(int64_t n) {
    return (n + 3) / 4 * 4;
}

// --- CPU: the rounded numbers -----------------------------------------------------------------------------------------

template <typename T>
uint32_t size_bits(T value) {
    return std::bit_cast<uint32_t>(std::abs(static_cast<float>(value)));
}

template <typename T>
T rounded(T value, uint32_t scale) {
    const auto inverse = std::bit_cast<float>(fp8_inverse_bits(scale));
    return float_from_e4m3(e4m3_from_float(static_cast<float>(value) * inverse)) * std::bit_cast<float>(scale);
}

/// Rounds groups of `down` rows and 128 columns.
template <typename T>
void round_groups(const Rows<T>& out, const Rows<const T>& in, int64_t rows, int64_t columns, int64_t down) {
#pragma omp parallel for schedule(static)
    for (int64_t top = 0; top < rows; top += down)
        for (int64_t first = 0; first < columns; first += group) {
            const int64_t bottom = std::min(rows, top + down), end = std::min(columns, first + group);
            uint32_t largest = 0;
            for (int64_t r = top; r < bottom; ++r)
                for (int64_t c = first; c < end; ++c) largest = std::max(largest, size_bits(in[r][c]));
            const uint32_t scale = fp8_scale_bits(largest);
            for (int64_t r = top; r < bottom; ++r)
                for (int64_t c = first; c < end; ++c) out[r][c] = rounded(in[r][c], scale);
        }
}

Tensor rounded_copy(const Context& ctx, const Tensor& room, const Tensor& in, int64_t down) {
    const PhaseTimer timer(ctx, "quantise");
    const Tensor out = room.slice(0, 0, in.numel()).view({in.size(0), in.size(1)});
    dispatch_float(in.dtype, [&]<typename T>() {
        round_groups<T>({out.as<T>(), out.stride[0]}, {in.as<T>(), in.stride[0]}, in.size(0), in.size(1), down);
    });
    return out;
}

/// What the matrices' codes stand for.
Tensor values_of(const Context& ctx, const Fp8Product& args) {
    const PhaseTimer timer(ctx, "quantise");
    const Tensor& w = args.weight;
    const Tensor out = args.fp8.room->weight.slice(0, 0, w.numel()).view({w.size(0), w.size(1)});
    dispatch_float(out.dtype, [&]<typename T>() {
        T* to = out.as<T>();
        for (const QuantisedMatrix& m : args.fp8.matrices) {
            const auto* const codes = m.codes.as<uint8_t>();
            const auto* const scales = m.scales.as<float>();
#pragma omp parallel for schedule(static)
            for (int64_t r = 0; r < m.rows; ++r)
                for (int64_t c = 0; c < m.columns; ++c)
                    to[r * m.columns + c] = float_from_e4m3(codes[r * m.columns + c]) *
                                            scales[r / group * groups_of(m.columns) + c / group];
            to += m.numel();
        }
    });
    return out;
}

void product_on_cpu(const Context& ctx, const Fp8Product& args) {
    const Fp8Room& room = *args.fp8.room;
    gemm(ctx,
         {.c = args.out,
          .a = rounded_copy(ctx, room.rows, args.in, 1),
          .b = args.fp8.matrices.empty() ? rounded_copy(ctx, room.weight, args.weight, group) : values_of(ctx, args),
          .transpose_b = !args.transposed,
          .bias = args.bias});
}

// --- GPU --------------------------------------------------------------------------------------------------------------

/// cuBLASLt takes a multiple of four rows: the last rows are a product of their own, of four rows, whose rows beyond the
/// last one are whatever the room holds.
struct RowOperands {
    Tensor codes, scales, last_codes, last_scales;
    RowOperands(const Fp8Room& room, int64_t rows, int64_t columns) {
        const int64_t whole = rows / 4 * 4, count = groups_of(columns) * whole;
        codes = room.rows.slice(0, 0, whole * columns).view({whole, columns});
        scales = room.row_scales.slice(0, 0, count).view({groups_of(columns), whole});
        if (whole == rows) return;
        last_codes = room.rows.slice(0, whole * columns, (whole + 4) * columns).view({4, columns});
        last_scales = room.row_scales.slice(0, count, count + 4 * groups_of(columns)).view({groups_of(columns), 4});
    }
};

void put_weight(const Context& ctx, const Fp8Product& args, const Tensor& codes, const Tensor& scales) {
    const bool t = args.transposed;
    if (args.fp8.matrices.empty())
        return cuda::weight_codes(ctx, {.codes = codes, .scales = scales, .in = args.weight, .transposed = t});
    int64_t row = 0;
    for (const QuantisedMatrix& m : args.fp8.matrices) {
        cuda::weight_codes(ctx, {.codes = codes.slice(t ? 1 : 0, row, row + m.rows),
                                 .scales = scales.slice(t ? 1 : 0, row / group, groups_of(row + m.rows)),
                                 .matrix = &m,
                                 .transposed = t});
        row += m.rows;
    }
}

void product_on_gpu(const Context& ctx, const Fp8Product& args) {
    const int64_t rows = args.out.size(0), columns = args.out.size(1), depth = args.in.size(1);
    require(columns % 16 == 0 && depth % 16 == 0, "fp8_product: {} x {}: expected multiples of 16", columns, depth);
    const Fp8Room& room = *args.fp8.room;
    const RowOperands in(room, rows, depth);
    const Tensor weight = room.weight.slice(0, 0, columns * depth).view({columns, depth});
    const int64_t across = whole_fours(groups_of(depth)), down = groups_of(columns);
    const Tensor weight_scales = room.weight_scales.slice(0, 0, down * across).view({down, across});
    if (across > groups_of(depth)) clear(ctx, weight_scales);  // no scale is left from another product
    {
        const PhaseTimer timer(ctx, "quantise");
        cuda::quantise_rows(ctx, {.codes = in.codes,
                                  .scales = in.scales,
                                  .last_codes = in.last_codes,
                                  .last_scales = in.last_scales,
                                  .in = args.in});
        put_weight(ctx, args, weight, weight_scales);
    }
    const auto multiply = [&](const Tensor& out, const Tensor& codes, const Tensor& scales) {
        gemm(ctx, {.c = out,
                   .a = codes,
                   .b = weight,
                   .transpose_b = true,
                   .a_scales = scales,
                   .b_scales = weight_scales,
                   .bias = args.bias});
    };
    const int64_t whole = in.codes.size(0);
    multiply(args.out.slice(0, 0, whole), in.codes, in.scales);
    if (whole == rows) return;
    const Tensor last = room.last_rows.slice(0, 0, 4 * columns).view({4, columns});
    multiply(last, in.last_codes, in.last_scales);
    copy(ctx, args.out.slice(0, whole, rows), last.slice(0, 0, rows - whole));
}

}  // namespace

Fp8Room Fp8Room::lay_out(Arena& arena, const char* name, DType dtype, const Largest& largest) {
    const bool gpu = arena.device() == Device::cuda;
    Fp8Room room;
    if (!gpu) {
        room.rows = arena.tensor(name, dtype, {largest.elements});
        room.weight = arena.tensor(name, dtype, {largest.weight});
        return room;
    }
    // Up to four rows more. A row of n columns has n / 128 scales, rounded up.
    const int64_t elements = largest.elements + 4 * largest.columns, most_groups = groups_of(largest.columns);
    room.rows = arena.tensor(name, DType::u8, {elements});
    room.row_scales = arena.tensor(name, DType::f32, {elements / group + largest.rows + 4});
    room.weight = arena.tensor(name, DType::u8, {largest.weight});
    // 128 x 128 elements have a scale, but a row of blocks has a multiple of four.
    room.weight_scales = arena.tensor(name, DType::f32, {most_groups * whole_fours(most_groups)});
    room.last_rows = arena.tensor(name, dtype, {4 * largest.columns});
    return room;
}

void fp8_product(const Context& ctx, const Fp8Product& args) {
    const ShapeCheck check(ctx, "fp8_product", args.in.dtype);
    const int64_t rows = args.weight.size(0), columns = args.weight.size(1), tokens = args.in.size(0),
                  to = args.transposed ? columns : rows, from = args.transposed ? rows : columns;
    const auto matrices = args.fp8.matrices;
    if (matrices.empty())
        check("weight", args.weight, {rows, columns});
    else
        require(fp8_takes(matrices) && rows_of(matrices) == rows && matrices.front().columns == columns,
                "fp8_product: {} matrices for a weight of {}", matrices.size(), args.weight);
    check("in", args.in, {tokens, from});
    check("out", args.out, {tokens, to});
    if (!args.bias.empty()) check("bias", args.bias, {to});
    if (tokens == 0) return;
    if (ctx.device == Device::cuda)
        product_on_gpu(ctx, args);
    else
        product_on_cpu(ctx, args);
}

bool fp8_takes(std::span<const QuantisedMatrix> matrices) {
    const auto in_e4m3 = [](const QuantisedMatrix& m) { return m.code == WeightCode::fp8; };
    const auto whole_blocks = [](const QuantisedMatrix& m) { return m.rows % group == 0; };
    return !matrices.empty() && std::ranges::all_of(matrices, in_e4m3) &&
           std::ranges::all_of(matrices.first(matrices.size() - 1), whole_blocks);
}

std::string why_no_fp8_products(int compute_capability) {
    if (compute_capability != 90)
        return fmt::format("this GPU has compute capability {}.{}, expected 9.0 (Hopper)", compute_capability / 10,
                           compute_capability % 10);
    if (!cuda::gemm_takes_fp8()) return "this build has CUDA before 12.9; build with a newer CUDA Toolkit";
    return "";
}

}  // namespace colonnade
