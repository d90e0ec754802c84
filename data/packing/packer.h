#pragma once
// Packer: which samples share a row, and in which order the rows come. One epoch's plan is
//
//     shuffle the samples -> cut into windows -> best-fit decreasing within each window -> shuffle the packs
//
// and a pure function of (lengths, settings, epoch): the same on any number of ranks and threads, on any platform, so
// that resuming needs nothing but a step number. Sorting puts similar lengths side by side; the windows and the last
// shuffle keep that from becoming a curriculum. Best-fit decreasing fills windows of 10,000 samples to about 99 %
// (Johnson 1973; for language models: arXiv 2404.10830).

#include <cstdint>
#include <span>
#include <vector>

namespace colonnade {

enum class PackStrategy {
    bfd,         ///< best-fit decreasing in windows
    sequential,  ///< samples in order; a new pack where the next one does not fit
    none,        ///< one sample per pack
};

struct PackSettings {
    int64_t packing_length = 2048;  ///< tokens of a full pack
    PackStrategy strategy = PackStrategy::bfd;
    int64_t window = 10000;  ///< samples packed together by bfd
    uint64_t seed = 42;
    bool shuffle = true;  ///< false: nothing is random and every epoch is the same (evaluation)
};

struct PackPlan {
    std::vector<int64_t> samples;       ///< every sample exactly once, pack after pack
    std::vector<int64_t> begins = {0};  ///< pack p is samples[begins[p], begins[p + 1])
    double fill = 0;                    ///< real tokens / (packs * packing_length)

    int64_t packs() const { return static_cast<int64_t>(begins.size()) - 1; }
    /// Indices of the samples in pack p; empty for p >= packs(): the empty packs that fill the last step.
    std::span<const int64_t> pack(int64_t p) const;
};

/// Plans epoch `epoch` (0-based) over samples of `lengths` tokens. O(n log n). Throws Exit::config where settings make
/// no sense or samples are longer than a pack, with their count.
PackPlan plan_epoch(std::span<const int64_t> lengths, const PackSettings& settings, int64_t epoch);

/// How the packs of an optimizer step are dealt out: micro step by micro step, within it rank by rank. What a step
/// holds depends on the product only: 1 rank x 4 accumulation steps and 4 x 1 train on the same packs.
struct StepLayout {
    int64_t per_device_batch = 1;  ///< packs in one rank's micro-batch
    int64_t accumulation = 1;      ///< micro-batches per step
    int64_t ranks = 1;

    int64_t packs_per_step() const { return per_device_batch * accumulation * ranks; }
    /// Optimizer steps in an epoch; the last one is filled up with empty packs.
    int64_t steps(const PackPlan& plan) const { return (plan.packs() + packs_per_step() - 1) / packs_per_step(); }
    /// First pack of the per_device_batch packs that `rank` takes in micro-step `micro` of step `step` of the epoch.
    int64_t first_pack(int64_t step, int64_t micro, int64_t rank) const {
        return step * packs_per_step() + (micro * ranks + rank) * per_device_batch;
    }
};

/// What one step holds over all ranks and micro-steps, known before its first forward.
struct StepTotals {
    double weight = 0;  ///< sum of the samples' target weights: what the loss of the step is divided by
    double pairs = 0;   ///< samples with answers to compare: what losses over preferences are divided by
    int64_t samples = 0, tokens = 0;
};
/// `lengths`, `weights` (target_weight() in data/samples/sample.h) and `pairs` (pair_count()) per sample.
StepTotals step_totals(const PackPlan& plan, const StepLayout& layout, int64_t step, std::span<const int64_t> lengths,
                       std::span<const double> weights, std::span<const double> pairs);

}  // namespace colonnade
