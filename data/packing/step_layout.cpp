#include "data/packing/step_layout.h"

#include <algorithm>
#include <numeric>

namespace colonnade {

int64_t pack_pairs(const PackPlan& plan, int64_t p, std::span<const int64_t> visible) {
    int64_t pairs = 0;
    for (int64_t i = plan.begins[static_cast<size_t>(p)]; i < plan.begins[static_cast<size_t>(p) + 1]; ++i)
        pairs += visible[static_cast<size_t>(plan.samples[static_cast<size_t>(i)])] -
                 visible_pairs(plan.shared[static_cast<size_t>(i)]);
    return pairs;
}

int64_t pack_cost(const PackPlan& plan, int64_t p, std::span<const int64_t> visible) {
    return plan.tokens[static_cast<size_t>(p)] + pack_pairs(plan, p, visible) / pairs_like_a_token;
}

/// Packs in their new order. The packs of one micro-step, sorted, go to the ranks in turn, from the first to the last
/// and back again.
static std::vector<int64_t> dealt_order(const PackPlan& plan, const StepLayout& layout,
                                        std::span<const int64_t> visible) {
    std::vector<int64_t> order(static_cast<size_t>(plan.packs())), cost;
    std::iota(order.begin(), order.end(), 0);
    for (const int64_t p : order) cost.push_back(pack_cost(plan, p, visible));
    const int64_t together = layout.ranks * layout.per_device_batch;
    for (int64_t begin = 0; begin < plan.packs(); begin += layout.packs_per_step()) {
        const int64_t end = std::min(begin + layout.packs_per_step(), plan.packs());
        std::stable_sort(order.begin() + begin, order.begin() + end, [&](int64_t a, int64_t b) {
            return cost[static_cast<size_t>(a)] > cost[static_cast<size_t>(b)];
        });
        for (int64_t micro = begin; micro + together <= end; micro += together) {
            const std::vector<int64_t> hand(order.begin() + micro, order.begin() + micro + together);
            for (int64_t i = 0; i < together; ++i) {
                const int64_t round = i / layout.ranks, turn = i % layout.ranks;
                const int64_t rank = round % 2 == 0 ? turn : layout.ranks - 1 - turn;
                order[static_cast<size_t>(micro + rank * layout.per_device_batch + round)] =
                    hand[static_cast<size_t>(i)];
            }
        }
    }
    return order;
}

void deal_packs(PackPlan& plan, const StepLayout& layout, std::span<const int64_t> visible) {
    if (layout.packs_per_step() == 1) return;
    PackPlan dealt;
    for (const int64_t p : dealt_order(plan, layout, visible)) {
        const auto begin = plan.begins[static_cast<size_t>(p)], end = plan.begins[static_cast<size_t>(p) + 1];
        dealt.samples.insert(dealt.samples.end(), plan.samples.begin() + begin, plan.samples.begin() + end);
        dealt.shared.insert(dealt.shared.end(), plan.shared.begin() + begin, plan.shared.begin() + end);
        dealt.begins.push_back(std::ssize(dealt.samples));
        dealt.tokens.push_back(plan.tokens[static_cast<size_t>(p)]);
    }
    plan.samples = std::move(dealt.samples);
    plan.shared = std::move(dealt.shared);
    plan.begins = std::move(dealt.begins);
    plan.tokens = std::move(dealt.tokens);
}

double slowest_over_mean(const PackPlan& plan, const StepLayout& layout, std::span<const int64_t> visible) {
    const auto cost_of_micro_batch = [&](int64_t first) {
        int64_t longest = 0, pairs = 0;
        for (int64_t p = first; p < std::min(first + layout.per_device_batch, plan.packs()); ++p) {
            longest = std::max(longest, plan.tokens[static_cast<size_t>(p)]);
            pairs += pack_pairs(plan, p, visible);
        }
        return static_cast<double>(layout.per_device_batch * longest) +
               static_cast<double>(pairs) / static_cast<double>(pairs_like_a_token);
    };
    double slowest = 0, all = 0;
    for (int64_t step = 0; step < layout.steps(plan); ++step) {
        double most = 0;
        for (int64_t rank = 0; rank < layout.ranks; ++rank) {
            double cost = 0;
            for (int64_t micro = 0; micro < layout.accumulation; ++micro)
                cost += cost_of_micro_batch(layout.first_pack(step, micro, rank));
            most = std::max(most, cost);
            all += cost;
        }
        slowest += most;
    }
    return slowest * static_cast<double>(layout.ranks) / all;
}

StepTotals step_totals(const PackPlan& plan, const StepLayout& layout, int64_t step, std::span<const int64_t> lengths,
                       std::span<const double> weights, std::span<const PairTotals> pairs) {
    StepTotals totals;
    const int64_t first = step * layout.packs_per_step();
    for (int64_t p = first; p < std::min(first + layout.packs_per_step(), plan.packs()); ++p) {
        totals.computed += plan.tokens[static_cast<size_t>(p)];
        for (const int64_t sample : plan.pack(p)) {
            ++totals.samples;
            totals.tokens += lengths[static_cast<size_t>(sample)];
            totals.weight += weights[static_cast<size_t>(sample)];
            const PairTotals& own = pairs[static_cast<size_t>(sample)];
            totals.pairs += own.pairs;
            totals.pair_weight += own.weight;
            totals.ranking_weight += own.mean();
        }
    }
    return totals;
}

}  // namespace colonnade
