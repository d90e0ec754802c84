#include "train/run/split_store.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/device/error.h"
#include "engine/device/philox.h"

namespace colonnade {

std::vector<int64_t> draw_samples(std::vector<int64_t> samples, int64_t count, uint64_t seed, uint64_t stream) {
    const Philox random{seed, stream};
    std::sort(samples.begin(), samples.end(), [&](int64_t a, int64_t b) {
        const uint64_t x = random.bits(static_cast<uint64_t>(a)), y = random.bits(static_cast<uint64_t>(b));
        return x != y ? x < y : a < b;
    });
    samples.resize(static_cast<size_t>(count));
    std::sort(samples.begin(), samples.end());
    return samples;
}

std::pair<TokenStore, TokenStore> split_store(const TokenStore& all, double val_size, uint64_t seed) {
    const int64_t n = all.size();
    const auto wanted =
        static_cast<int64_t>(val_size < 1 ? std::llround(val_size * static_cast<double>(n)) : std::llround(val_size));
    const int64_t count = std::max<int64_t>(wanted, 1);
    if (count >= n) fail(Exit::config, "val_size takes {} of {} samples: nothing is left to train on", count, n);
    constexpr uint64_t split_stream = 0x5917;
    std::vector<int64_t> samples(static_cast<size_t>(n));
    std::iota(samples.begin(), samples.end(), 0);
    std::vector<bool> held_out(static_cast<size_t>(n));
    for (const int64_t i : draw_samples(std::move(samples), count, seed, split_stream))
        held_out[static_cast<size_t>(i)] = true;
    return {all.subset([&](int64_t i) { return !held_out[static_cast<size_t>(i)]; }),
            all.subset([&](int64_t i) { return held_out[static_cast<size_t>(i)]; })};
}

}  // namespace colonnade
