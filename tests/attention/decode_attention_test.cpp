// Attention of one token over the cache equals the formula in double: any length, grouped heads, windows, norms and
// rotations, several sequences, whatever the others are.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attention/decode.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

struct DecodeAttentionOnDevice : DeviceCase {
    struct Size {
        int64_t heads, kv_heads, dim, capacity, window = 0;
        bool norm = false, rope = false;
    };
    struct Call {
        Twin out{}, qkv{}, k{}, v{}, slots{}, positions{}, cos{}, sin{}, q_norm{}, k_norm{};
    };
    Call call(const Size& s, int64_t slot_count, const std::vector<int32_t>& slots,
              const std::vector<int32_t>& positions) {
        const auto rows = std::ssize(slots);
        Call c{.out = output({rows, s.heads, s.dim}),
               .qkv = values({rows, (s.heads + 2 * s.kv_heads + 1) * s.dim}, 1),
               .k = values({slot_count, s.capacity, s.kv_heads, s.dim}, 2),
               .v = values({slot_count, s.capacity, s.kv_heads, s.dim}, 3),
               .slots = indices(slots),
               .positions = indices(positions)};
        c.qkv = c.qkv.slice(1, 0, (s.heads + 2 * s.kv_heads) * s.dim);  // strided rows
        if (s.norm) c.q_norm = values({s.dim}, 4), c.k_norm = values({s.dim}, 5);
        if (s.rope) {
            std::vector<double> cos, sin;
            for (int64_t j = 0; j < s.capacity; ++j)
                for (int64_t i = 0; i < s.dim / 2; ++i) {
                    const auto angle = static_cast<double>(j) / static_cast<double>(i + 1);
                    cos.push_back(std::cos(angle)), sin.push_back(std::sin(angle));
                }
            c.cos = twin(sum_dtype(dtype()), {s.capacity, s.dim / 2}, cos);
            c.sin = twin(sum_dtype(dtype()), {s.capacity, s.dim / 2}, sin);
        }
        return c;
    }
    template <typename Of>
    void attend(const Context& ctx, const Call& c, const Size& s, Of of) {
        const int64_t rows = of(c.out).size(0);
        const int64_t bytes =
            decode_attention_scratch_bytes(ctx.device, {rows, s.heads, s.kv_heads, s.dim, s.capacity});
        Arena arena(ctx.device, static_cast<size_t>(bytes) + Arena::alignment);
        const Tensor scratch = arena.tensor("", DType::u8, {bytes});
        for (int time = 0; time < 2; ++time)  // a call leaves the scratch memory as it was
            decode_attention(ctx, {.out = of(c.out),
                                   .qkv = of(c.qkv),
                                   .k = of(c.k),
                                   .v = of(c.v),
                                   .slots = of(c.slots),
                                   .positions = of(c.positions),
                                   .cos = of(c.cos),
                                   .sin = of(c.sin),
                                   .q_norm = of(c.q_norm),
                                   .k_norm = of(c.k_norm),
                                   .eps = eps,
                                   .window = s.window,
                                   .scale = 1 / std::sqrt(static_cast<double>(s.dim)),
                                   .longest = s.capacity,
                                   .scratch = scratch});
        if (ctx.gpu) ctx.gpu->synchronize();
    }
    static constexpr double eps = 1e-6;

    /// The heads of all tokens, normed and rotated by the formulas.
    static std::vector<double> turned(const Call& c, const Size& s) {
        std::vector<double> x;
        for (int64_t r = 0; r < c.qkv.exact.size(0); ++r)
            for (int64_t h = 0; h < s.heads + 2 * s.kv_heads; ++h) {
                const double* const from = c.qkv.exact.as<double>() + r * c.qkv.exact.stride[0] + h * s.dim;
                std::vector<double> head(from, from + s.dim);
                const Tensor& norm = h < s.heads ? c.q_norm.exact : c.k_norm.exact;
                if (h < s.heads + s.kv_heads) turn(head, s, norm, c, c.positions.exact.as<int32_t>()[r]);
                x.insert(x.end(), head.begin(), head.end());
            }
        return x;
    }
    static void turn(std::vector<double>& head, const Size& s, const Tensor& norm, const Call& c, int64_t position) {
        const auto half = static_cast<size_t>(s.dim / 2);
        if (s.norm) {
            const double squares = std::inner_product(head.begin(), head.end(), head.begin(), 0.0);
            for (size_t i = 0; i < head.size(); ++i)
                head[i] *= norm.as<double>()[i] / std::sqrt(squares / static_cast<double>(s.dim) + eps);
        }
        for (size_t i = 0; s.rope && i < half; ++i) {
            const double cos = c.cos.exact.as<double>()[static_cast<size_t>(position) * half + i],
                         sin = c.sin.exact.as<double>()[static_cast<size_t>(position) * half + i];
            const double low = head[i], high = head[i + half];
            head[i] = low * cos - high * sin;
            head[i + half] = high * cos + low * sin;
        }
    }
};

/// The tensors of a call in double.
struct Exact {
    Tensor q, k, v, slots, positions;
};

/// softmax(scale * q K^T) V by the formula.
std::vector<double> formula(const Exact& c, int64_t window) {
    const int64_t heads = c.q.size(1), dim = c.q.size(2), group = heads / c.k.size(2);
    std::vector<double> out;
    for (int64_t r = 0; r < c.q.size(0); ++r)
        for (int64_t h = 0; h < heads; ++h) {
            const int64_t length = c.positions.as<int32_t>()[r] + 1,
                          first = window ? std::max<int64_t>(0, length - window) : 0;
            const auto at = [&](const Tensor& t, int64_t j, int64_t i) {
                return t.as<double>()[c.slots.as<int32_t>()[r] * t.stride[0] + j * t.stride[1] +
                                      h / group * t.stride[2] + i];
            };
            std::vector<double> p;
            double sum = 0;
            for (int64_t j = first; j < length; ++j) {
                double dot = 0;
                for (int64_t i = 0; i < dim; ++i)
                    dot += c.q.as<double>()[r * c.q.stride[0] + h * c.q.stride[1] + i] * at(c.k, j, i);
                sum += p.emplace_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
            }
            for (int64_t i = 0; i < dim; ++i) {
                double value = 0;
                for (int64_t j = first; j < length; ++j) value += p[static_cast<size_t>(j - first)] * at(c.v, j, i);
                out.push_back(value / sum);
            }
        }
    return out;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-12) << i;
}

TEST_P(DecodeAttentionOnDevice, EqualsTheFormula) {
    for (const Size& s : {Size{4, 2, 64, 130},
                          {8, 1, 128, 70, 0, true, true},
                          {14, 2, 64, 65, 20, false, true},
                          {3, 3, 96, 40, 1, false, true},
                          {6, 2, 256, 200, 64, true, false},
                          {2, 1, 256, 80, 0, true, true},
                          {32, 8, 64, 90, 0, false, true},
                          {9, 1, 8, 33},
                          {5, 1, 16, 64, 63, true, true},
                          {24, 2, 128, 129, 65, false, true}}) {
        release();
        const auto last = static_cast<int32_t>(s.capacity - 1);
        const std::vector<int32_t> slots = {2, 0, 3, 1}, positions = {last, 0, last / 2, 17};
        const Call c = call(s, 4, slots, positions);
        std::vector<double> x = turned(c, s), keys = read(c.k.exact), cached = read(c.v.exact);
        const int64_t width = (s.heads + 2 * s.kv_heads) * s.dim, own = s.kv_heads * s.dim;
        for (size_t r = 0; r < slots.size(); ++r) {
            const auto from = x.begin() + static_cast<int64_t>(r) * width + s.heads * s.dim;
            const int64_t to = (slots[r] * s.capacity + positions[r]) * own;
            std::copy_n(from, own, keys.begin() + to);
            std::copy_n(from + own, own, cached.begin() + to);
        }
        run([&](const Context& ctx, auto of) { attend(ctx, c, s, of); });

        expect_near(read(c.k.exact), keys);
        expect_near(read(c.v.exact), cached);
        Tensor q = tensor_of(x, {4, s.heads + 2 * s.kv_heads, s.dim}).slice(1, 0, s.heads);
        const Exact exact{q, tensor_of(keys, {4, s.capacity, s.kv_heads, s.dim}),
                          tensor_of(cached, {4, s.capacity, s.kv_heads, s.dim}), c.slots.exact, c.positions.exact};
        expect_near(read(c.out.exact), formula(exact, s.window));
        // Keys are rounded once on a GPU. The output is an average of normal numbers; scores of norms and rotations are
        // at most 5 sqrt(dim) and have the error of keys and angles.
        expect_close("k", c.k, {.relative = 4 * rounding(), .absolute = 12 * 5 * f32_rounding});
        expect_close("v", c.v, {});
        const double score = s.norm ? 4 : 1;
        expect_close("out", c.out,
                     {.relative = 2 * rounding(), .absolute = on_gpu() ? score * 0x1p-8 : score * 32 * f32_rounding});
    }
}

TEST_P(DecodeAttentionOnDevice, TakesLongContexts) {
    for (const int64_t window : {0, 1000}) {
        release();
        const Size s{8, 2, 64, 9000, window, false, true};
        const Call c = call(s, 2, {1, 0}, {8999, 5123});
        run([&](const Context& ctx, auto of) { attend(ctx, c, s, of); });
        expect_close("out", c.out, {.relative = 2 * rounding(), .absolute = on_gpu() ? 0x1p-9 : 32 * f32_rounding});
    }
}

TEST_P(DecodeAttentionOnDevice, ARowDoesNotDependOnTheOthers) {
    const Size s{4, 2, 64, 300, 0, true, true};
    const std::vector<int32_t> slots = {0, 1, 2, 3, 4}, positions = {299, 5, 64, 63, 200};
    const Call all = call(s, 5, slots, positions);
    const auto device = [](const Twin& t) { return t.device; };
    attend(context(), all, s, device);
    const std::vector<double> together = read(all.out.device);
    for (int64_t r = 0; r < 5; ++r) {
        const auto part = [&](const Twin& t) { return t.slice(0, r, r + 1); };
        Call one = all;
        one.out = output({1, s.heads, s.dim});
        one.qkv = part(all.qkv), one.slots = part(all.slots), one.positions = part(all.positions);
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
