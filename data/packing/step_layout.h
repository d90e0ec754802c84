#pragma once
// StepLayout: how the packs of an epoch's plan become optimizer steps, micro-steps and ranks.

#include <cstdint>
#include <span>

#include "data/packing/packer.h"
#include "data/samples/sample.h"

namespace colonnade {

/// How the packs of an optimizer step are distributed: micro-step by micro-step, and rank by rank within each. Which
/// packs a step contains depends only on the product: 1 rank x 4 accumulation steps and 4 x 1 train on the same packs.
struct StepLayout {
    int64_t per_device_batch = 1;  ///< packs in one rank's micro-batch
    int64_t accumulation = 1;      ///< micro-batches per step
    int64_t ranks = 1;

    int64_t packs_per_step() const { return per_device_batch * accumulation * ranks; }
    /// Optimizer steps in an epoch; the last one is padded with empty packs.
    int64_t steps(const PackPlan& plan) const { return (plan.packs() + packs_per_step() - 1) / packs_per_step(); }
    /// First of the per_device_batch packs of `rank` in micro-step `micro` of step `step` of the epoch.
    int64_t first_pack(int64_t step, int64_t micro, int64_t rank) const {
        return step * packs_per_step() + (micro * ranks + rank) * per_device_batch;
    }
};

/// What a pack costs, in tokens: those it computes, and its pairs of a query and a key that it sees. The pairs are those
/// of a causal mask if every sample is one sequence; samples of several sequences have fewer.
///
///     cost = tokens + pairs / 16384,    pairs = sum over samples of (length (length + 1) - shared (shared + 1)) / 2
///
/// By the rates of docs/benchmarks.md a token's GEMMs take as long as the attention of about 10,000 pairs in
/// Llama-3.2-1B, and of 19,000 in Qwen2.5-7B. The exact figure hardly matters for the order of full packs.
constexpr int64_t pairs_like_a_token = 16384;
int64_t pack_cost(const PackPlan& plan, int64_t p, std::span<const int64_t> lengths);

/// Reorders the packs within each step by falling cost, so that the packs of a micro-step cost about the same on every
/// rank: a micro-step takes as long as its slowest rank. With several packs in a micro-batch, each rank gets some from
/// both ends of the micro-step. Which packs a step contains does not change, and their order does not depend on ranks and
/// accumulation if per_device_batch is 1.
void deal_packs(PackPlan& plan, const StepLayout& layout, std::span<const int64_t> lengths);

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
