// Products in e4m3 equal exact products of operands that this file rounds by its own, slow definition: the nearest of all
// numbers that the 256 codes stand for.

#include "layers/fp8_product.h"

#include <cmath>

#include "layers/linear.h"
#include "layers/quantised_matrix.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

/// The number nearest to x among those of e4m3; of two, the one with an even code.
double nearest_e4m3(double x) {
    double best = 0, distance = INFINITY;
    for (int code = 0; code < 128; ++code) {
        const double value = float_from_e4m3(static_cast<uint8_t>(code)), d = std::abs(std::abs(x) - value);
        if (d < distance || (d == distance && code % 2 == 0)) best = value, distance = d;
    }
    return std::copysign(best, x);
}

/// Rounds a matrix in groups of `down` x 128.
std::vector<double> rounded(std::vector<double> values, int64_t rows, int64_t columns, int64_t down) {
    for (int64_t top = 0; top < rows; top += down)
        for (int64_t left = 0; left < columns; left += 128) {
            const auto each = [&](auto&& body) {
                for (int64_t r = top; r < std::min(rows, top + down); ++r)
                    for (int64_t c = left; c < std::min(columns, left + 128); ++c)
                        body(values[static_cast<size_t>(r * columns + c)]);
            };
            double largest = 0;
            each([&](double x) { largest = std::max(largest, std::abs(x)); });
            if (largest == 0) continue;
            const double scale = std::exp2(std::ceil(std::log2(largest / 448)));
            each([&](double& x) { x = nearest_e4m3(x / scale) * scale; });
        }
    return values;
}

struct Shape {
    int64_t tokens, in, out;
    bool bias = false;
};

class Fp8ProductOnDevice : public DeviceCase {
  protected:
    void SetUp() override {
        DeviceCase::SetUp();
        if (IsSkipped() || !on_gpu()) return;
        if (const std::string why = why_no_fp8_products(context().gpu->compute_capability()); !why.empty())
            GTEST_SKIP() << why;
    }
    /// Normal numbers; those of a row or of some columns are larger or smaller by powers of two.
    Twin spread(int64_t rows, int64_t columns, uint64_t stream) {
        auto numbers = random_values<double>(rows * columns, stream);
        for (int64_t i = 0; i < rows * columns; ++i)
            numbers[static_cast<size_t>(i)] *= std::exp2(i / columns % 5 * 3 - 6 + i % columns / 128 % 3);
        return twin(dtype(), {rows, columns}, numbers);
    }
    /// Memory for both products.
    struct Room {
        Arena device_memory, exact_memory;
        Fp8Room device, exact;
        Room(Device on, DType dtype, const Fp8Room::Largest& largest)
            : device_memory(on, size_t{16} << 20),
              exact_memory(Device::cpu, size_t{32} << 20),
              device(Fp8Room::lay_out(device_memory, "", dtype, largest)),
              exact(Fp8Room::lay_out(exact_memory, "", DType::f64, largest)) {}
    };
    Room room(const Shape& s) const {
        return {GetParam(),
                dtype(),
                {.rows = s.tokens,
                 .elements = s.tokens * std::max(s.in, s.out),
                 .columns = std::max(s.in, s.out),
                 .weight = s.in * s.out}};
    }
    void multiply(const Shape& s, const Twin& out, const Twin& in, const Twin& weight, const Twin& bias,
                  bool transposed) {
        const Room memory = room(s);
        run([&](const Context& ctx, auto of) {
            fp8_product(ctx, {.out = of(out),
                              .in = of(in),
                              .weight = of(weight),
                              .transposed = transposed,
                              .bias = of(bias),
                              .fp8 = {&(of(in).dtype == dtype() ? memory.device : memory.exact)}});
        });
    }
    /// Both results of a product against the exact product of rounded operands.
    void expect_product(const Shape& s, bool transposed) {
        release();
        const int64_t from = transposed ? s.out : s.in, to = transposed ? s.in : s.out;
        const Twin in = spread(s.tokens, from, 1), weight = spread(s.out, s.in, 2),
                   bias = s.bias ? values({to}, 3) : Twin(), out = output({s.tokens, to});
        multiply(s, out, in, weight, bias, transposed);
        const auto x = rounded(read(in.exact), s.tokens, from, 1), w = rounded(read(weight.exact), s.out, s.in, 128);
        const auto found = read(out.device), exact = read(out.exact);
        const auto added = s.bias ? read(bias.exact) : std::vector<double>(static_cast<size_t>(to));
        for (int64_t t = 0; t < s.tokens; ++t)
            for (int64_t n = 0; n < to; ++n) {
                // Hopper aligns 32 products and what they are added to with the largest of these, and keeps 13 bits below
                // it; the sums of 128 are added in f32.
                double sum = added[static_cast<size_t>(n)], size = std::abs(sum), lost = 0, partial = 0, largest = 0;
                for (int64_t k = 0; k < from; ++k) {
                    const double term = x[static_cast<size_t>(t * from + k)] *
                                        w[static_cast<size_t>(transposed ? k * s.in + n : n * s.in + k)];
                    if (k % 128 == 0) partial = 0;
                    if (k % 32 == 0) lost += 33 * 0x1p-13 * largest, largest = std::abs(partial);
                    largest = std::max(largest, std::abs(term));
                    sum += term, partial += term, size += std::abs(term);
                }
                lost += 33 * 0x1p-13 * largest;
                const auto i = static_cast<size_t>(t * to + n);
                ASSERT_NEAR(exact[i], sum, 1e-12 * size) << t << ", " << n;
                ASSERT_NEAR(found[i], sum, rounding() * std::abs(sum) + (on_gpu() ? lost : 1e-6 * size))
                    << t << ", " << n;
            }
    }
    Twin identity(int64_t n) {
        std::vector<double> numbers(static_cast<size_t>(n * n));
        for (int64_t i = 0; i < n; ++i) numbers[static_cast<size_t>(i * (n + 1))] = 1;
        return twin(dtype(), {n, n}, numbers);
    }
};

/// A product with the identity has one term: every device rounds both operands to the same bits.
TEST_P(Fp8ProductOnDevice, OperandsAreRoundedToTheNearestNumber) {
    const int64_t n = 272, rows = 203;
    const Twin in = spread(rows, n, 1), one = identity(n), out = output({rows, n});
    multiply({rows, n, n}, out, in, one, {}, false);
    EXPECT_EQ(read(out.device), rounded(read(in.exact), rows, n, 1));
    const int64_t tall = 208;
    const Twin many = spread(tall, n, 2), of_rows = identity(tall), back = output({tall, n});
    multiply({tall, n, tall}, back, of_rows, many, {}, true);
    EXPECT_EQ(read(back.device), rounded(read(many.exact), tall, n, 128));
    const Twin of_columns = identity(n), forward = output({n, tall});
    multiply({n, n, tall}, forward, of_columns, many, {}, false);
    const auto found = read(forward.device), expected = read(back.device);
    for (int64_t r = 0; r < tall; ++r)
        for (int64_t c = 0; c < n; ++c)
            ASSERT_EQ(found[static_cast<size_t>(c * tall + r)], expected[static_cast<size_t>(r * n + c)]) << r << c;
}

TEST_P(Fp8ProductOnDevice, IsTheProductOfRoundedOperands) {
    for (const Shape& s : {Shape{1, 16, 16},
                           {3, 144, 48},
                           {4, 128, 128},
                           {6, 576, 192, true},
                           {129, 272, 400},
                           {203, 960, 320, true},
                           {64, 640, 1536}})
        for (const bool transposed : {false, true}) {
            SCOPED_TRACE(fmt::format("{} x {} -> {}, {}", s.tokens, s.in, s.out, transposed));
            expect_product(s, transposed);
        }
}

/// Codes of a weight are taken as they are, with scales that are no powers of two; the identity shows the numbers.
TEST_P(Fp8ProductOnDevice, TakesTheCodesOfAQuantisedWeight) {
    const int64_t columns = 272, heights[] = {256, 128, 48}, rows = 432;
    const auto numbers = random_values<double>(rows * columns, 2);
    Arena device(GetParam(), size_t{4} << 20), host(Device::cpu, size_t{4} << 20);
    std::vector<QuantisedMatrix> matrices, in_host;
    std::vector<double> expected;
    for (const int64_t height : heights) {
        const std::vector<double> values(numbers.begin() + std::ssize(expected),
                                         numbers.begin() + std::ssize(expected) + height * columns);
        matrices.push_back(QuantisedMatrix::lay_out(device, "", WeightCode::fp8, height, columns));
        quantise({.out = matrices.back(), .in = view_of(values), .gpu = context().gpu});
        const QuantisedMatrix& m =
            in_host.emplace_back(QuantisedMatrix::lay_out(host, "", WeightCode::fp8, height, columns));
        quantise({.out = m, .in = view_of(values)});
        for (int64_t i = 0; i < height * columns; ++i)
            expected.push_back(float_from_e4m3(m.codes.as<uint8_t>()[i]) *
                               m.scales.as<float>()[i / columns / 128 * 3 + i % columns / 128]);
    }
    for (double& x : expected)
        x = on_gpu() ? float_from_bf16(bf16_from_float(static_cast<float>(x))) : static_cast<float>(x);
    EXPECT_TRUE(fp8_takes(matrices));
    const Shape s{rows, columns, rows};
    const Room both = room(s);
    const Twin back = output({rows, columns}), forward = output({columns, rows});
    const Tensor shape(nullptr, dtype(), {rows, columns}, GetParam());
    const Fp8Linear fp8{.room = &both.device, .matrices = matrices};
    linear_backward(context(), {.din = back.device, .dout = identity(rows).device, .weight = shape, .fp8 = fp8});
    EXPECT_EQ(read(back.device), expected);
    linear_forward(context(), {.out = forward.device, .in = identity(columns).device, .weight = shape, .fp8 = fp8});
    const auto found = read(forward.device);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c)
            ASSERT_EQ(found[static_cast<size_t>(c * rows + r)], expected[static_cast<size_t>(r * columns + c)]);
}

TEST(Fp8Product, TakesWholeBlocksOfE4m3) {
    Arena arena(Device::cpu, size_t{4} << 20);
    const auto matrix = [&](WeightCode code, int64_t rows) {
        return QuantisedMatrix::lay_out(arena, "", code, rows, 256);
    };
    const auto takes = [](std::vector<QuantisedMatrix> m) { return fp8_takes(m); };
    EXPECT_TRUE(takes({matrix(WeightCode::fp8, 128), matrix(WeightCode::fp8, 64)}));
    EXPECT_FALSE(takes({matrix(WeightCode::fp8, 64), matrix(WeightCode::fp8, 128)}));
    EXPECT_FALSE(takes({matrix(WeightCode::fp8, 128), matrix(WeightCode::nf4, 64)}));
    EXPECT_FALSE(takes({}));
}

/// What else is in a batch does not change a row's bits.
TEST_P(Fp8ProductOnDevice, RowsAreByThemselves) {
    const Shape s{70, 400, 272};
    const Twin in = spread(s.tokens, s.in, 1), other = spread(s.tokens, s.in, 4), weight = spread(s.out, s.in, 2),
               out = output({s.tokens, s.out}), again = output({s.tokens, s.out});
    multiply(s, out, in, weight, {}, false);
    auto mixed = read(other.exact);
    const auto kept = read(in.exact);
    std::copy_n(kept.begin() + 33 * s.in, s.in, mixed.begin() + 33 * s.in);
    std::copy_n(kept.begin() + 69 * s.in, s.in, mixed.begin() + 69 * s.in);  // of the last two rows
    multiply(s, again, twin(dtype(), {s.tokens, s.in}, mixed), weight, {}, false);
    for (const int64_t row : {33, 69})
        EXPECT_EQ(read(out.device.slice(0, row, row + 1)), read(again.device.slice(0, row, row + 1))) << row;
}

TEST_P(Fp8ProductOnDevice, WhatIsNotFiniteStaysSo) {
    const Shape s{9, 256, 32};
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        release();
        auto numbers = random_values<double>(s.tokens * s.in, 1);
        numbers[3 * 256 + 130] = numbers[8 * 256] = bad;
        const Twin in = twin(dtype(), {s.tokens, s.in}, numbers), weight = spread(s.out, s.in, 2),
                   out = output({s.tokens, s.out});
        multiply(s, out, in, weight, {}, false);
        const auto found = read(out.device);
        for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(std::isfinite(found[i]), i / 32 != 3 && i / 32 != 8) << i;
    }
}

TEST_P(Fp8ProductOnDevice, ZerosAndTinyNumbers) {
    const Shape s{5, 256, 32};
    std::vector<double> numbers(static_cast<size_t>(s.tokens * s.in));
    for (size_t i = 256; i < 512; ++i) numbers[i] = 0x1p-120;
    const Twin in = twin(dtype(), {s.tokens, s.in}, numbers), out = output({s.tokens, s.out}),
               weight = twin(dtype(), {s.out, s.in}, std::vector<double>(static_cast<size_t>(s.out * s.in), 0x1p20));
    multiply(s, out, in, weight, {}, false);
    const auto found = read(out.device);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], i / 32 == 1 ? 256 * 0x1p-100 : 0) << i;
}

/// The backward pass of a linear layer takes the gradient of its weight from the operands as they are.
TEST_P(Fp8ProductOnDevice, OnlyTheInputGradientIsInFewerBits) {
    const Shape s{37, 144, 272};
    const Twin in = spread(s.tokens, s.in, 1), weight = spread(s.out, s.in, 2), dout = spread(s.tokens, s.out, 3),
               din = output({s.tokens, s.in}), expected = output({s.tokens, s.in}), dweight = sum_output({s.out, s.in}),
               plain = sum_output({s.out, s.in});
    const Room both = room(s);
    const Fp8Room& memory = both.device;
    const auto backward = [&](const Tensor& into, const Tensor& gradient, const Fp8Room* fp8) {
        linear_backward(context(), {.din = into,
                                    .dweight = gradient,
                                    .dweight_mode = Grad::overwrite,
                                    .dout = dout.device,
                                    .in = in.device,
                                    .weight = weight.device,
                                    .fp8 = {fp8}});
    };
    backward(din.device, dweight.device, &memory);
    backward({}, plain.device, nullptr);
    EXPECT_EQ(read(dweight.device), read(plain.device));
    fp8_product(
        context(),
        {.out = expected.device, .in = dout.device, .weight = weight.device, .transposed = true, .fp8 = {&memory}});
    EXPECT_EQ(read(din.device), read(expected.device));
}

TEST(Fp8Product, AddsToNothing) {
    std::vector<float> in(16), weight(256), out(16), numbers(512);
    const Tensor half = tensor_of(numbers, {512});
    const Fp8Room room{.rows = half, .row_scales = {}, .weight = half, .weight_scales = {}, .last_rows = {}};
    expect_error(Exit::internal, "linear_backward: a product in e4m3 adds to nothing", [&] {
        linear_backward({}, {.din = tensor_of(out, {1, 16}),
                             .din_mode = Grad::accumulate,
                             .dout = tensor_of(in, {1, 16}),
                             .weight = tensor_of(weight, {16, 16}),
                             .fp8 = {&room}});
    });
}

INSTANTIATE_TEST_SUITE_P(Devices, Fp8ProductOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
