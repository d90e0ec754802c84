// The cache of keys and values: heads go to their places, and to no other.

#include "layers/kv_cache.h"

#include <algorithm>
#include <cmath>

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
