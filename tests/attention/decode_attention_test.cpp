// Attention of one token over the cache equals the formula in double: any length, grouped heads, windows, several
// sequences, whatever the others are.

#include <cmath>

#include "attention/decode.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

struct DecodeAttentionOnDevice : DeviceCase {
    struct Size {
        int64_t heads, kv_heads, dim, capacity, window = 0;
    };
    struct Call {
        Twin out, q, k, v, slots, positions;
    };
    Call call(const Size& s, int64_t slot_count, const std::vector<int32_t>& slots,
              const std::vector<int32_t>& positions) {
        const auto rows = std::ssize(slots);
        const Twin qkv = values({rows, s.heads + 2, s.dim}, 1);
        return {.out = output({rows, s.heads, s.dim}),
                .q = qkv.slice(1, 0, s.heads),
                .k = values({slot_count, s.capacity, s.kv_heads, s.dim}, 2),
                .v = values({slot_count, s.capacity, s.kv_heads, s.dim}, 3),
                .slots = indices(slots),
                .positions = indices(positions)};
    }
    template <typename Of>
    void attend(const Context& ctx, const Call& c, const Size& s, Of of) {
        const int64_t rows = of(c.q).size(0);
        const int64_t bytes =
            decode_attention_scratch_bytes(ctx.device, {rows, s.heads, s.kv_heads, s.dim, s.capacity});
        Arena arena(ctx.device, static_cast<size_t>(bytes) + Arena::alignment);
        const Tensor scratch = arena.tensor("", DType::u8, {bytes});
        for (int time = 0; time < 2; ++time)  // a call leaves the scratch memory as it was
            decode_attention(ctx, {.out = of(c.out),
                                   .q = of(c.q),
                                   .k = of(c.k),
                                   .v = of(c.v),
                                   .slots = of(c.slots),
                                   .positions = of(c.positions),
                                   .window = s.window,
                                   .scale = 1 / std::sqrt(static_cast<double>(s.dim)),
                                   .longest = s.capacity,
                                   .scratch = scratch});
        if (ctx.gpu) ctx.gpu->synchronize();
    }
};

/// softmax(scale * q K^T) V by the formula.
std::vector<double> formula(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& slots,
                            const Tensor& positions, int64_t window) {
    const int64_t heads = q.size(1), dim = q.size(2), group = heads / k.size(2);
    std::vector<double> out;
    for (int64_t r = 0; r < q.size(0); ++r)
        for (int64_t h = 0; h < heads; ++h) {
            const int64_t length = positions.as<int32_t>()[r] + 1,
                          first = window ? std::max<int64_t>(0, length - window) : 0;
            const auto at = [&](const Tensor& t, int64_t j, int64_t i) {
                return t
                    .as<double>()[slots.as<int32_t>()[r] * t.stride[0] + j * t.stride[1] + h / group * t.stride[2] + i];
            };
            std::vector<double> p;
            double sum = 0;
            for (int64_t j = first; j < length; ++j) {
                double dot = 0;
                for (int64_t i = 0; i < dim; ++i)
                    dot += q.as<double>()[r * q.stride[0] + h * q.stride[1] + i] * at(k, j, i);
                sum += p.emplace_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
            }
            for (int64_t i = 0; i < dim; ++i) {
                double value = 0;
                for (int64_t j = first; j < length; ++j) value += p[static_cast<size_t>(j - first)] * at(v, j, i);
                out.push_back(value / sum);
            }
        }
    return out;
}

TEST_P(DecodeAttentionOnDevice, EqualsTheFormula) {
    for (const Size& s : {Size{4, 2, 64, 130},
                          {8, 1, 128, 70},
                          {14, 2, 64, 65, 20},
                          {3, 3, 96, 40, 1},
                          {6, 2, 256, 200, 64},
                          {32, 8, 64, 90},
                          {9, 1, 8, 33},
                          {5, 1, 16, 64, 63},
                          {24, 2, 128, 129, 65}}) {
        release();
        const auto last = static_cast<int32_t>(s.capacity - 1);
        const Call c = call(s, 4, {2, 0, 3, 1}, {last, 0, last / 2, 17});
        run([&](const Context& ctx, auto of) { attend(ctx, c, s, of); });
        // Averages of normal numbers; the weights of the averages are rounded on a GPU, too.
        expect_close("out", c.out, {.relative = 2 * rounding(), .absolute = on_gpu() ? 0x1p-8 : 32 * f32_rounding});
        const std::vector<double> expected =
            formula(c.q.exact, c.k.exact, c.v.exact, c.slots.exact, c.positions.exact, s.window);
        const std::vector<double> found = read(c.out.exact);
        for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-12) << i;
    }
}

TEST_P(DecodeAttentionOnDevice, TakesLongContexts) {
    for (const int64_t window : {0, 1000}) {
        release();
        const Size s{8, 2, 64, 9000, window};
        const Call c = call(s, 2, {1, 0}, {8999, 5123});
        run([&](const Context& ctx, auto of) { attend(ctx, c, s, of); });
        expect_close("out", c.out, {.relative = 2 * rounding(), .absolute = on_gpu() ? 0x1p-9 : 32 * f32_rounding});
    }
}

TEST_P(DecodeAttentionOnDevice, ARowDoesNotDependOnTheOthers) {
    const Size s{4, 2, 64, 300};
    const std::vector<int32_t> slots = {0, 1, 2, 3, 4}, positions = {299, 5, 64, 63, 200};
    const Call all = call(s, 5, slots, positions);
    const auto device = [](const Twin& t) { return t.device; };
    attend(context(), all, s, device);
    const std::vector<double> together = read(all.out.device);
    for (int64_t r = 0; r < 5; ++r) {
        const auto part = [&](const Twin& t) { return t.slice(0, r, r + 1); };
        Call one = all;
        one.out = output({1, s.heads, s.dim});
        one.q = part(all.q), one.slots = part(all.slots), one.positions = part(all.positions);
        attend(context(), one, s, device);
        const std::vector<double> alone = read(one.out.device);
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + r * s.heads * s.dim)) << r;
    }
}

TEST_P(DecodeAttentionOnDevice, RefusesBadShapes) {
    const Size s{4, 2, 64, 30};
    Call c = call(s, 2, {0}, {29});
    const auto device = [](const Twin& t) { return t.device; };
    c.v = values({2, 29, 2, 64}, 3);
    expect_error(Exit::internal, "decode_attention: v is [2, 29, 2, 64]", [&] { attend(context(), c, s, device); });
    c = call({3, 2, 64, 30}, 2, {0}, {29});
    expect_error(Exit::internal, "3 heads on 2 kv_heads", [&] { attend(context(), c, s, device); });
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeAttentionOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
