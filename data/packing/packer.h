#pragma once
// Packer: decides which samples share a row and the order of the rows. The plan of one epoch is
//
//     shuffle the samples -> cut into windows -> best-fit decreasing within each window -> shuffle the packs
//
// It is a pure function of (lengths, settings, epoch): the same for any number of ranks and threads and on any
// platform, so that resuming needs only a step number. Sorting puts similar lengths next to each other; the windows and
// the last shuffle keep that from becoming a curriculum. Best-fit decreasing fills windows of 10,000 samples to about
// 99 % (Johnson 1973; for language models: arXiv 2404.10830).

#include <cstdint>
#include <span>
#include <vector>

namespace colonnade {

enum class PackStrategy {
    bfd,         ///< best-fit decreasing in windows
    sequential,  ///< samples in order; a new pack when the next sample does not fit
    none,        ///< one sample per pack
};

struct PackSettings {
    int64_t packing_length = 2048;  ///< tokens of a full pack
    PackStrategy strategy = PackStrategy::bfd;
    int64_t window = 10000;  ///< samples packed together by bfd
    uint64_t seed = 42;
    bool shuffle = true;  ///< false: no randomness, every epoch is the same (evaluation)
};

struct PackPlan {
    std::vector<int64_t> samples;       ///< every sample exactly once, pack by pack
    std::vector<int64_t> begins = {0};  ///< pack p is samples[begins[p], begins[p + 1])
    double fill = 0;                    ///< real tokens / (packs * packing_length)

    int64_t packs() const { return static_cast<int64_t>(begins.size()) - 1; }
    /// Samples of pack p; empty for p >= packs(), which pads the last step.
    std::span<const int64_t> pack(int64_t p) const;
};

/// Plans epoch `epoch` (0-based) over samples of `lengths` tokens. O(n log n). Throws Exit::config for settings out of
/// range, or with the number of samples that are longer than a pack.
PackPlan plan_epoch(std::span<const int64_t> lengths, const PackSettings& settings, int64_t epoch);

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

/// Totals of one step over all ranks and micro-steps, known before its first forward pass.
struct StepTotals {
    double weight = 0;  ///< sum of the samples' target weights: divisor of the step's loss
    double pairs = 0;     ///< of answers: divisor of preference losses
    double rankings = 0;  ///< samples with pairs: divisor of a reward model's losses
    int64_t samples = 0, tokens = 0;
};
/// `lengths`, `weights` (target_weight() in data/samples/sample.h) and `pairs` (their number) per sample.
StepTotals step_totals(const PackPlan& plan, const StepLayout& layout, int64_t step, std::span<const int64_t> lengths,
                       std::span<const double> weights, std::span<const double> pairs);

}  // namespace colonnade
