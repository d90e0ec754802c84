#include "data/packing/packer.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "engine/device/error.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// Fisher-Yates, because std::shuffle differs between standard libraries.
void shuffle(std::vector<int64_t>& values, const Philox& random) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i, i)]);
}

/// The random stream of one shuffle; the tag separates it from the streams of weight initialisation.
Philox stream(uint64_t seed, int64_t epoch, uint64_t purpose) {
    constexpr uint64_t tag = uint64_t{0x7061636B} << 32;  // "pack"
    return {seed, tag + 2 * static_cast<uint64_t>(epoch) + purpose};
}

void check(std::span<const int64_t> lengths, const PackSettings& settings) {
    if (settings.packing_length < 1)
        fail(Exit::config, "packing_length is {}, expected at least 1", settings.packing_length);
    if (settings.window < 1) fail(Exit::config, "packing window is {}, expected at least 1 sample", settings.window);
    const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
    if (longest <= settings.packing_length) return;
    const auto too_long =
        std::count_if(lengths.begin(), lengths.end(), [&](int64_t n) { return n > settings.packing_length; });
    fail(Exit::config,
         "{} of {} samples are longer than packing_length {} (the longest has {} tokens): raise packing_length, or "
         "lower max_length to drop or truncate them",
         too_long, lengths.size(), settings.packing_length, longest);
}

using Packs = std::vector<std::vector<int64_t>>;

/// Appends the packs of one window: longest sample first, each into the fullest pack with enough room, ties in order.
void best_fit_decreasing(Packs& packs, std::vector<int64_t> window, std::span<const int64_t> lengths,
                         int64_t capacity) {
    const auto length = [&](int64_t sample) { return lengths[static_cast<size_t>(sample)]; };
    std::stable_sort(window.begin(), window.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
    std::set<std::pair<int64_t, size_t>> room;  // (tokens left, pack)
    for (const int64_t sample : window) {
        auto best = room.lower_bound({length(sample), 0});
        auto [left, pack] = best != room.end() ? *best : std::pair{capacity, packs.size()};
        if (best != room.end())
            room.erase(best);
        else
            packs.emplace_back();
        packs[pack].push_back(sample);
        room.insert({left - length(sample), pack});
    }
}

/// Next fit, which keeps the order of the samples.
void in_sequence(Packs& packs, const std::vector<int64_t>& order, std::span<const int64_t> lengths, int64_t capacity) {
    int64_t left = -1;
    for (const int64_t sample : order) {
        const int64_t length = lengths[static_cast<size_t>(sample)];
        if (packs.empty() || length > left) {
            packs.emplace_back();
            left = capacity;
        }
        packs.back().push_back(sample);
        left -= length;
    }
}

}  // namespace

std::span<const int64_t> PackPlan::pack(int64_t p) const {
    if (p >= packs()) return {};
    const auto begin = static_cast<size_t>(begins[static_cast<size_t>(p)]),
               end = static_cast<size_t>(begins[static_cast<size_t>(p) + 1]);
    return std::span(samples).subspan(begin, end - begin);
}

PackPlan plan_epoch(std::span<const int64_t> lengths, const PackSettings& settings, int64_t epoch) {
    check(lengths, settings);
    std::vector<int64_t> order(lengths.size());
    std::iota(order.begin(), order.end(), 0);
    if (settings.shuffle) shuffle(order, stream(settings.seed, epoch, 0));

    Packs packs;
    switch (settings.strategy) {
        case PackStrategy::bfd:
            for (auto begin = order.begin(); begin != order.end();) {
                const auto end = begin + std::min<int64_t>(settings.window, order.end() - begin);
                best_fit_decreasing(packs, {begin, end}, lengths, settings.packing_length);
                begin = end;
            }
            break;
        case PackStrategy::sequential:
            in_sequence(packs, order, lengths, settings.packing_length);
            break;
        case PackStrategy::none:
            for (const int64_t sample : order) packs.push_back({sample});
            break;
    }

    std::vector<int64_t> pack_order(packs.size());
    std::iota(pack_order.begin(), pack_order.end(), 0);
    if (settings.shuffle) shuffle(pack_order, stream(settings.seed, epoch, 1));

    PackPlan plan;
    plan.samples.reserve(lengths.size());
    for (const int64_t p : pack_order) {
        const auto& pack = packs[static_cast<size_t>(p)];
        plan.samples.insert(plan.samples.end(), pack.begin(), pack.end());
        plan.begins.push_back(static_cast<int64_t>(plan.samples.size()));
    }
    const auto tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    if (!packs.empty())
        plan.fill = static_cast<double>(tokens) /
                    (static_cast<double>(packs.size()) * static_cast<double>(settings.packing_length));
    return plan;
}

StepTotals step_totals(const PackPlan& plan, const StepLayout& layout, int64_t step, std::span<const int64_t> lengths,
                       std::span<const double> weights, std::span<const double> pairs) {
    StepTotals totals;
    const int64_t first = step * layout.packs_per_step();
    for (int64_t p = first; p < first + layout.packs_per_step(); ++p) {
        for (const int64_t sample : plan.pack(p)) {
            ++totals.samples;
            totals.tokens += lengths[static_cast<size_t>(sample)];
            totals.weight += weights[static_cast<size_t>(sample)];
            totals.pairs += pairs[static_cast<size_t>(sample)];
            totals.rankings += pairs[static_cast<size_t>(sample)] > 0 ? 1 : 0;
        }
    }
    return totals;
}

}  // namespace colonnade
