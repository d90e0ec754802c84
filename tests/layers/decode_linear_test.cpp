// The linear layers of a decode step equal the separate ops in double, with everything that is fused with them, and a
// row does not depend on the other rows.

#include "layers/decode_linear.h"

#include <cmath>

#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/swiglu.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

struct DecodeLinearOnDevice : DeviceCase {
    struct Shape {
        int64_t rows, in, out;
    };
    struct With {
        bool norm = false, bias = false, add = false, swiglu = false, f32 = false;
        int64_t slices = 0;
    };
    static constexpr int64_t rank = 16;

    struct Operands {
        Twin in{}, weight{}, bias{}, norm{}, add{}, a{}, b[3]{};
    };
    Operands operands(const Shape& s, const With& with) {
        Operands o{.in = values({s.rows, s.in}, 1), .weight = values({s.out, s.in}, 2)};
        if (with.bias) o.bias = values({s.out}, 3);
        if (with.norm) o.norm = values({s.in}, 4);
        if (with.add) o.add = values({s.rows, s.out}, 5);
        if (with.slices) o.a = values({with.slices * rank, s.in}, 6);
        for (int64_t i = 0; i < with.slices; ++i)
            o.b[i] = values({columns(s, with, i), rank}, static_cast<uint64_t>(7 + i));
        return o;
    }
    /// Slices cover all columns but the last few.
    static int64_t columns(const Shape& s, const With& with, int64_t) { return (s.out - 5) / with.slices; }

    template <typename Of>
    static LowRank low_rank(const Operands& o, const Shape& s, const With& with, Of of) {
        LowRank adapters{.a = of(o.a), .slices = {}, .scale = 0.5};
        for (int64_t i = 0; i < with.slices; ++i) adapters.slices.push_back({i * columns(s, with, i), of(o.b[i])});
        return adapters;
    }

    void compare(const Shape& s, const With& with) {
        release();
        const Operands o = operands(s, with);
        const int64_t width = with.swiglu ? s.out / 2 : s.out;
        const Twin out = with.f32 ? sum_output({s.rows, width}) : output({s.rows, width});
        run([&](const Context& ctx, auto of) {
            Arena arena(ctx.device, size_t{8} << 20);
            const DecodeScratch scratch = DecodeScratch::lay_out(
                arena, of(o.in).dtype,
                {.rows = s.rows, .in_features = s.in, .out_features = s.out, .low_rank = 3 * rank});
            const LowRank adapters = low_rank(o, s, with, of);
            decode_linear(ctx, {.out = of(out),
                                .in = of(o.in),
                                .weight = of(o.weight),
                                .bias = of(o.bias),
                                .norm = of(o.norm),
                                .eps = 1e-5,
                                .adapters = with.slices ? &adapters : nullptr,
                                .add = of(o.add),
                                .finish = with.swiglu ? DecodeFinish::swiglu : DecodeFinish::none,
                                .scratch = scratch});
            if (ctx.gpu) ctx.gpu->synchronize();
        });
        // Sums of `in` products of normal numbers, with rounded inputs behind a norm, and 16 more behind an adapter; for
        // swiglu the product of two such sums.
        const double sum = std::sqrt(static_cast<double>(s.in)) * (with.slices ? 3 : 1);
        const double error = 4 * sum * (on_gpu() ? 0x1p-9 * (with.norm || with.slices ? 2 : 1) : 4 * f32_rounding);
        expect_close(fmt::format("{} x {} x {}", s.rows, s.in, s.out).c_str(), out,
                     {.relative = 2 * rounding(), .absolute = with.swiglu ? 4 * sum * error : error});
        expect_equal_separate_ops(s, with, o, out);
    }

    /// The double side against the ops of training.
    void expect_equal_separate_ops(const Shape& s, const With& with, const Operands& o, const Twin& out) {
        const Context ctx;
        Arena arena(Device::cpu, size_t{16} << 20);
        const auto make = [&](std::initializer_list<int64_t> shape) { return arena.tensor("", DType::f64, shape); };
        Tensor x = o.in.exact;
        if (with.norm) {
            x = make({s.rows, s.in});
            rmsnorm_forward(ctx,
                            {.out = x, .rstd = make({s.rows}), .in = o.in.exact, .weight = o.norm.exact, .eps = 1e-5});
        }
        Tensor y = make({s.rows, s.out});
        linear_forward(ctx, {.out = y, .in = x, .weight = o.weight.exact, .bias = o.bias.exact});
        const LowRank adapters = low_rank(o, s, with, [](const Twin& t) { return t.exact; });
        if (with.slices)
            low_rank_forward(ctx, {.out = y, .h = make({s.rows, with.slices * rank}), .in = x, .weights = adapters});
        if (with.swiglu) {
            const Tensor z = make({s.rows, s.out / 2});
            swiglu_forward(ctx, {.out = z, .gate_up = y});
            y = z;
        }
        const std::vector<double> found = read(out.exact), expected = read(y);
        for (size_t i = 0; i < found.size(); ++i) {
            const double more = with.add ? o.add.exact.as<double>()[i] : 0;
            ASSERT_NEAR(found[i], expected[i] + more, 1e-9 * (1 + std::abs(expected[i])));
        }
    }
};

TEST_P(DecodeLinearOnDevice, EqualsDouble) {
    for (const Shape& s :
         {Shape{1, 64, 48}, {3, 576, 96}, {8, 896, 112}, {9, 128, 34}, {16, 96, 64}, {17, 128, 80}, {33, 64, 96}}) {
        compare(s, {});
        compare(s, {.norm = true});
        compare(s, {.bias = true, .f32 = true});
        compare(s, {.norm = true, .bias = true, .slices = 3});
        compare(s, {.add = true});
        compare(s, {.bias = true, .add = true, .slices = 1});
        compare(s, {.norm = true, .swiglu = true});
        compare(s, {.norm = true, .bias = true, .swiglu = true, .slices = 2});
    }
}

TEST_P(DecodeLinearOnDevice, TakesSizesThatFillNoVector) {
    for (const Shape& s : {Shape{1, 40, 24}, {2, 24, 8}, {5, 8, 16}}) {
        compare(s, {.norm = true});
        compare(s, {.add = true});
    }
}

TEST_P(DecodeLinearOnDevice, MayAddInPlace) {
    const Twin in = values({2, 64}, 1), weight = values({32, 64}, 2), x = values({2, 32}, 3), y = output({2, 32});
    const std::vector<double> before = read(x.exact);
    run([&](const Context& ctx, auto of) {
        Arena arena(ctx.device, size_t{1} << 20);
        const DecodeScratch scratch =
            DecodeScratch::lay_out(arena, of(in).dtype, {.rows = 2, .in_features = 64, .out_features = 32});
        decode_linear(ctx, {.out = of(y), .in = of(in), .weight = of(weight), .add = of(x), .scratch = scratch});
        decode_linear(ctx, {.out = of(x), .in = of(in), .weight = of(weight), .add = of(x), .scratch = scratch});
        if (ctx.gpu) ctx.gpu->synchronize();
    });
    EXPECT_EQ(read(x.device), read(y.device));
    EXPECT_NE(read(x.exact), before);
}

TEST_P(DecodeLinearOnDevice, ARowDoesNotDependOnTheOthers) {
    constexpr int64_t rows = decode_rows, in = 320, out = 70;
    const Twin x = values({rows, in}, 1), weight = values({out, in}, 2), norm = values({in}, 3);
    const Context ctx = context();
    Arena arena(ctx.device, size_t{4} << 20);
    const DecodeScratch scratch =
        DecodeScratch::lay_out(arena, dtype(), {.rows = rows, .in_features = in, .out_features = out});
    const auto compute = [&](int64_t first, int64_t count) {
        const Twin y = output({count, out});
        decode_linear(ctx, {.out = y.device,
                            .in = x.device.slice(0, first, first + count),
                            .weight = weight.device,
                            .norm = norm.device,
                            .eps = 1e-6,
                            .scratch = scratch});
        return read(y.device);
    };
    const std::vector<double> all = compute(0, rows);
    for (const int64_t count : {1, 2, 5, 8, 11}) {
        const auto some = compute(rows - count, count);
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.end() - count * out)) << count;
    }
}

TEST_P(DecodeLinearOnDevice, RefusesBadShapes) {
    const Twin in = values({2, 64}, 1), weight = values({32, 64}, 2), out = output({2, 32});
    const Context ctx = context();
    const DecodeScratch scratch{};
    expect_error(Exit::internal, "decode_linear: in is [2, 32]", [&] {
        decode_linear(ctx, {.out = out.device, .in = out.device, .weight = weight.device, .scratch = scratch});
    });
    expect_error(Exit::internal, "decode_linear: out is [2, 32]", [&] {
        decode_linear(ctx, {.out = out.device,
                            .in = in.device,
                            .weight = weight.device,
                            .finish = DecodeFinish::swiglu,
                            .scratch = scratch});
    });
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeLinearOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
