// The cache of keys and values: a decode step writes what the ops of training compute for the same token, to its place.

#include "layers/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

struct KvCacheOnDevice : DeviceCase {};

TEST_P(KvCacheOnDevice, AppendsHeadsToTheirPlaces) {
    for (const int64_t dim : {8, 64, 128}) {
        release();
        constexpr int64_t tokens = 7, heads = 3, slots = 4, capacity = 9;
        const Twin packed = values({tokens, 2 * heads, dim}, 1), cache = output({slots, capacity, heads, dim});
        const std::vector<int32_t> slot = {0, 0, 3, 1, 1, 1, 2}, position = {0, 1, 8, 4, 5, 6, 0};
        const Twin s = indices(slot), p = indices(position);
        run([&](const Context& ctx, auto of) {
            append_to_cache(ctx, {of(cache), of(packed).slice(1, heads, 2 * heads), of(s), of(p)});
        });
        expect_close("cache", cache, {});
        const std::vector<double> found = read(cache.device), from = read(packed.device);
        for (size_t t = 0; t < tokens; ++t) {
            const auto row = (slot[t] * capacity + position[t]) * heads * dim;
            const auto begin = from.begin() + (2 * static_cast<int64_t>(t) + 1) * heads * dim;
            EXPECT_TRUE(std::equal(begin, begin + heads * dim, found.begin() + row)) << t;
        }
        EXPECT_EQ(std::ranges::count_if(found, [](double x) { return std::isnan(x); }),
                  (slots * capacity - tokens) * heads * dim);
    }
}

TEST_P(KvCacheOnDevice, DecodesHeadsAsTheOpsOfTrainingDo) {
    struct Size {
        int64_t heads, kv_heads, dim;
        bool norm;
    };
    for (const auto& [heads, kv_heads, dim, norm] : {Size{4, 2, 64, false},
                                                     {3, 1, 128, true},
                                                     {8, 8, 96, false},
                                                     {2, 1, 256, true},
                                                     {5, 5, 8, true},
                                                     {14, 2, 64, false}}) {
        release();
        constexpr int64_t rows = 3, slots = 4, capacity = 70;
        const Twin qkv = values({rows, (heads + 2 * kv_heads) * dim}, 1);
        const Twin k = output({slots, capacity, kv_heads, dim}), v = output({slots, capacity, kv_heads, dim});
        const Twin q_norm = values({dim}, 2), k_norm = values({dim}, 3);
        const Twin slot = indices({2, 0, 3}), position = indices({69, 0, 33});
        std::vector<int32_t> all(capacity);
        std::iota(all.begin(), all.end(), 0);
        const Twin every = indices(all), cos = sum_output({capacity, dim / 2}), sin = sum_output({capacity, dim / 2});
        const RopeFrequencies frequencies = rope_frequencies(dim, 1e4, {});
        const std::vector<double> raw = read(qkv.exact);
        run([&](const Context& ctx, auto of) {
            rope_angles(ctx, {.cos = of(cos), .sin = of(sin), .positions = of(every), .frequencies = frequencies});
            decode_heads(ctx, {.qkv = of(qkv),
                               .k_cache = of(k),
                               .v_cache = of(v),
                               .slots = of(slot),
                               .positions = of(position),
                               .cos = of(cos),
                               .sin = of(sin),
                               .q_norm = norm ? of(q_norm) : Tensor(),
                               .k_norm = norm ? of(k_norm) : Tensor(),
                               .eps = 1e-6});
        });
        // The norm's values are below 5, each rotated with its pair.
        const Bound bound{.relative = 4 * rounding(), .absolute = 12 * 5 * f32_rounding + (on_gpu() ? 5 * 0x1p-8 : 0)};
        expect_close("q", qkv, bound);
        expect_close("k", k, bound);
        expect_close("v", v, {});

        // The double side against the ops of training.
        std::vector<double> x = raw, c(rows * static_cast<size_t>(dim / 2)), s = c,
                            rstd(rows * static_cast<size_t>(heads + kv_heads));
        const Tensor packed = tensor_of(x, {rows, heads + 2 * kv_heads, dim});
        if (norm) {
            const auto normed = [&](const Tensor& part, const Twin& weight) {
                rmsnorm_forward({},
                                {.out = part,
                                 .rstd = tensor_of(rstd, {std::ssize(rstd)}).slice(0, 0, part.size(0) * part.size(1)),
                                 .in = part,
                                 .weight = weight.exact,
                                 .eps = 1e-6});
            };
            normed(packed.slice(1, 0, heads), q_norm);
            normed(packed.slice(1, heads, heads + kv_heads), k_norm);
        }
        const Tensor cosine = tensor_of(c, {rows, dim / 2}), sine = tensor_of(s, {rows, dim / 2});
        rope_angles({}, {.cos = cosine, .sin = sine, .positions = position.exact, .frequencies = frequencies});
        rope_apply({}, {.x = packed.slice(1, 0, heads + kv_heads), .cos = cosine, .sin = sine});
        const std::vector<double> queries = read(qkv.exact), keys = read(k.exact);
        const int64_t width = (heads + 2 * kv_heads) * dim;
        for (int64_t r = 0; r < rows; ++r) {
            for (int64_t i = 0; i < heads * dim; ++i)
                ASSERT_NEAR(queries[static_cast<size_t>(r * width + i)], x[static_cast<size_t>(r * width + i)], 1e-12);
            const int64_t row =
                (slot.exact.as<int32_t>()[r] * capacity + position.exact.as<int32_t>()[r]) * kv_heads * dim;
            for (int64_t i = 0; i < kv_heads * dim; ++i)
                ASSERT_NEAR(keys[static_cast<size_t>(row + i)], x[static_cast<size_t>(r * width + heads * dim + i)],
                            1e-12);
        }
    }
}

TEST(KvCache, RefusesPlacesOutsideOfTheCache) {
    std::vector<float> cache(2 * 3 * 4), heads(4);
    const auto append = [&](int32_t slot, int32_t position) {
        const std::vector<int32_t> s = {slot}, p = {position};
        append_to_cache({}, {tensor_of(cache, {2, 3, 1, 4}), tensor_of(heads, {1, 1, 4}), view_of(s), view_of(p)});
    };
    EXPECT_NO_THROW(append(1, 2));
    expect_error(Exit::internal, "token 0 goes to position 3 of slot 1", [&] { append(1, 3); });
    expect_error(Exit::internal, "token 0 goes to position 0 of slot 2", [&] { append(2, 0); });
    expect_error(Exit::internal, "token 0 goes to position -1 of slot 0", [&] { append(0, -1); });
}

INSTANTIATE_TEST_SUITE_P(Devices, KvCacheOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
