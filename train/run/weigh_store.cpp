#include "train/run/weigh_store.h"

#include <algorithm>
#include <cmath>

#include "engine/device/error.h"
#include "train/run/split_store.h"

namespace colonnade {

TokenStore weigh_store(TokenStore store, std::span<const DatasetSpec> datasets, uint64_t seed) {
    if (std::all_of(datasets.begin(), datasets.end(), [](const DatasetSpec& set) { return set.weight == 1; }))
        return store;
    constexpr uint64_t weight_stream = 0x3E16;
    std::vector<std::vector<int64_t>> samples(datasets.size());
    for (int64_t i = 0; i < store.size(); ++i) samples[static_cast<size_t>(store.dataset(i))].push_back(i);
    std::vector<int64_t> taken;
    for (size_t set = 0; set < datasets.size(); ++set) {
        const std::vector<int64_t>& all = samples[set];
        const double passes = std::floor(datasets[set].weight), share = datasets[set].weight - passes;
        const int64_t drawn = std::llround(share * static_cast<double>(all.size()));
        if (passes == 0 && drawn == 0 && !all.empty())
            fail(Exit::config, "{}: weight {} takes none of its {} samples", datasets[set].path, datasets[set].weight,
                 all.size());
        for (double pass = 0; pass < passes; ++pass) taken.insert(taken.end(), all.begin(), all.end());
        const std::vector<int64_t> rest = draw_samples(all, drawn, seed, weight_stream);
        taken.insert(taken.end(), rest.begin(), rest.end());
    }
    return store.select(taken);
}

}  // namespace colonnade
