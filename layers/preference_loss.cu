// The arrays are small: thousands of terms and pairs. One warp sums the terms of a sequence and one CTA handles all
// pairs, so that every sum has a fixed order.

#include "engine/device/gpu.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;

/// The relation of sequences and targets, as TermTable has it.
struct Terms {
    const int32_t* begins;
    const int32_t* targets;
    const float* weights;
    const int32_t* sequences;
    const int32_t* target_begins;
    const int32_t* by_target;

    static Terms of(const TermTable& t) {
        return {t.begins.as<int32_t>(),    t.targets.as<int32_t>(),           t.weights.as<float>(),
                t.sequences.as<int32_t>(), t.of_targets.begins.as<int32_t>(), t.of_targets.terms.as<int32_t>()};
    }
};

__global__ void __launch_bounds__(threads)
    sequence_kernel(double* logps, const double* nll, Terms terms, int64_t sequences) {
    const int64_t sequence = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (sequence >= sequences) return;
    double sum = 0;
    for (int i = terms.begins[sequence] + lane; i < terms.begins[sequence + 1]; i += 32)
        sum += static_cast<double>(terms.weights[i]) * nll[terms.targets[i]];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) logps[sequence] = -sum;
}

struct Pairs {
    double* sums;
    double* slopes;  ///< or null
    const double* logps;
    const double* reference;  ///< or null
    const double* lengths;
    const int32_t* pairs;
    const float* weights;
    int64_t count;
    PreferenceMix mix;
    double scale;
};

__global__ void __launch_bounds__(threads) pairs_kernel(Pairs a) {
    __shared__ double partial[PairSums::count][threads];
    const int thread = static_cast<int>(threadIdx.x);
    double total[PairSums::count] = {};
    for (int64_t i = thread; i < a.count; i += threads) {
        const PairScores pair = scores_of_pair(a.pairs, i, a.logps, a.reference, a.lengths);
        const float weight = a.weights[i];
        const PairLoss loss = weighted(pair_loss(a.mix, pair), weight);
        if (a.slopes) {
            a.slopes[2 * i] = a.scale * loss.d_chosen;
            a.slopes[2 * i + 1] = a.scale * loss.d_rejected;
        }
        const PairSums own = sums_of(pair, loss.value, weight, a.mix.beta, a.reference != nullptr);
        for (int k = 0; k < PairSums::count; ++k) total[k] += own.of[k];
    }
    for (int k = 0; k < PairSums::count; ++k) partial[k][thread] = total[k];
    for (int width = threads / 2; width > 0; width /= 2) {
        __syncthreads();
        if (thread < width)
            for (int k = 0; k < PairSums::count; ++k) partial[k][thread] += partial[k][thread + width];
    }
    __syncthreads();
    if (thread < PairSums::count) a.sums[thread] += partial[thread][0];
}

__global__ void __launch_bounds__(threads)
    coefficient_kernel(double* coefficients, const double* slopes, const int32_t* begins, const int32_t* sides,
                       int64_t sequences) {
    const int64_t s = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (s >= sequences) return;
    double sum = 0;
    for (int32_t at = begins[s]; at < begins[s + 1]; ++at) sum += slopes[sides[at]];
    coefficients[s] = sum;
}

__global__ void __launch_bounds__(threads)
    target_kernel(double* scales, const double* coefficients, Terms terms, int64_t targets) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i >= targets) return;
    double sum = 0;
    for (int32_t at = terms.target_begins[i]; at < terms.target_begins[i + 1]; ++at) {
        const int32_t term = terms.by_target[at];
        sum += coefficients[terms.sequences[term]] * static_cast<double>(terms.weights[term]);
    }
    scales[i] = -sum;
}

/// CTAs for `count` items, `each` of them in a CTA.
unsigned ctas(int64_t count, int each) {
    return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace

void sequence_log_probabilities(const Context& ctx, const SequenceLogProbabilities& a) {
    const int64_t sequences = a.logps.numel();
    if (sequences == 0) return;
    sequence_kernel<<<ctas(sequences, warps), threads, 0, stream_of(ctx)>>>(a.logps.as<double>(), a.nll.as<double>(),
                                                                            Terms::of(a.terms), sequences);
    check_launch("sequence_log_probabilities");
}

void preference_loss(const Context& ctx, const PreferencePairs& a) {
    const bool backward = !a.coefficients.empty();
    pairs_kernel<<<1, threads, 0, stream_of(ctx)>>>(
        {.sums = a.sums.as<double>(),
         .slopes = backward ? a.slopes.as<double>() : nullptr,
         .logps = a.logps.as<double>(),
         .reference = a.reference.empty() ? nullptr : a.reference.as<double>(),
         .lengths = a.lengths.as<double>(),
         .pairs = a.table.pairs.as<int32_t>(),
         .weights = a.table.weights.as<float>(),
         .count = a.table.pairs.size(0),
         .mix = a.mix,
         .scale = a.scale});
    check_launch("preference_loss");
    const int64_t sequences = a.logps.numel();
    if (!backward || sequences == 0) return;
    coefficient_kernel<<<ctas(sequences, threads), threads, 0, stream_of(ctx)>>>(
        a.coefficients.as<double>(), a.slopes.as<double>(), a.table.begins.as<int32_t>(), a.table.sides.as<int32_t>(),
        sequences);
    check_launch("preference_loss");
}

void target_coefficients(const Context& ctx, const TargetCoefficients& a) {
    const int64_t targets = a.scales.numel();
    if (targets == 0) return;
    target_kernel<<<ctas(targets, threads), threads, 0, stream_of(ctx)>>>(
        a.scales.as<double>(), a.coefficients.as<double>(), Terms::of(a.terms), targets);
    check_launch("target_coefficients");
}

}  // namespace colonnade::cuda
