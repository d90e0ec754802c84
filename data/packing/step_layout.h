#pragma once
// StepLayout: how the packs of an epoch's plan become optimizer steps, micro-steps and ranks.

#include <cstdint>
#include <span>

#include "data/packing/packer.h"
#include "data/samples/sample.h"

namespace colonnade {

/// How the packs of an optimizer step are distributed: micro-step by micro-step, and rank by rank within each, from the
/// last rank to the first in every other micro-step. Which packs a step contains depends only on the product: 1 rank x 4
/// accumulation steps and 4 x 1 train on the same packs.
struct StepLayout {
    int64_t per_device_batch = 1;  ///< packs in one rank's micro-batch
    int64_t accumulation = 1;      ///< micro-batches per step
    int64_t ranks = 1;

    int64_t packs_per_step() const { return per_device_batch * accumulation * ranks; }
    /// Optimizer steps in an epoch; the last one is padded with empty packs.
    int64_t steps(const PackPlan& plan) const { return (plan.packs() + packs_per_step() - 1) / packs_per_step(); }
    /// First of the per_device_batch packs of `rank` in micro-step `micro` of step `step` of the epoch.
    int64_t first_pack(int64_t step, int64_t micro, int64_t rank) const {
        const int64_t turn = micro % 2 == 0 ? rank : ranks - 1 - rank;
        return step * packs_per_step() + (micro * ranks + turn) * per_device_batch;
    }
};

/// Pairs of a query and a key that pack p sees in its attention. `visible`: visible_pairs() of each sample alone
/// (data/samples/sample.h); what a sample shares with the one before it is counted once.
///
///     pairs = sum over samples of visible - shared (shared + 1) / 2
///
/// Exact if the plan's `shared` is all that samples of a row have in common; otherwise an upper bound, as the plan's
/// tokens are (data/packing/packer.h). Sliding windows are not counted: they hide some of the pairs.
int64_t pack_pairs(const PackPlan& plan, int64_t p, std::span<const int64_t> visible);

/// What a pack costs, in tokens: cost = tokens + pairs / 16384. By the rates of docs/benchmarks.md a token's GEMMs take as
/// long as the attention of about 10,000 pairs in Llama-3.2-1B, and of 19,000 in Qwen2.5-7B. The exact figure hardly
/// matters for the order of full packs.
constexpr int64_t pairs_like_a_token = 16384;
int64_t pack_cost(const PackPlan& plan, int64_t p, std::span<const int64_t> visible);

/// Reorders the packs within each step by falling cost. Ranks wait for each other once a step, when its gradients are
/// summed, so that a step takes as long as the rank that has most to do in all of its micro-steps. As every other
/// micro-step goes to the ranks backwards, the rank with the costliest pack of one has the cheapest of the next. With
/// several packs in a micro-batch, each rank gets some from both ends of the micro-step. Which packs a step contains does
/// not change, and their order does not depend on ranks and accumulation if per_device_batch is 1.
void deal_packs(PackPlan& plan, const StepLayout& layout, std::span<const int64_t> visible);

/// How much longer a plan takes than if all ranks had the same to do: the cost of each step's slowest rank over that of an
/// average one, both summed over the steps. 1 for one rank. The packs of a micro-batch are padded to the longest of them,
/// so its cost is per_device_batch x the tokens of that one + pairs / 16384.
double slowest_over_mean(const PackPlan& plan, const StepLayout& layout, std::span<const int64_t> visible);

/// Totals of one step over all ranks and micro-steps, known before its first forward pass.
struct StepTotals {
    double weight = 0;       ///< sum of the samples' target weights: divisor of the step's loss
    double pairs = 0;        ///< of answers
    double pair_weight = 0;  ///< sum of their weights: divisor of preference losses
    /// Sum over samples of the mean weight of their pairs: divisor of a reward model's losses.
    double ranking_weight = 0;
    int64_t samples = 0;
    int64_t tokens = 0;    ///< represented: sum of the samples' lengths
    int64_t computed = 0;  ///< of these, what is shared counted once
};
/// `lengths`, `weights` (target_weight() in data/samples/sample.h) and `pairs` (pair_totals()) per sample.
StepTotals step_totals(const PackPlan& plan, const StepLayout& layout, int64_t step, std::span<const int64_t> lengths,
                       std::span<const double> weights, std::span<const PairTotals> pairs);

}  // namespace colonnade
