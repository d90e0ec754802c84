// The arrays are small: thousands of targets and pairs. One warp sums the targets of a branch and one CTA handles all
// pairs, so that every sum has a fixed order.

#include "engine/device/gpu.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;

__global__ void __launch_bounds__(threads) branch_kernel(double* logps, const double* nll, const float* weights,
                                                         const int32_t* order, const int32_t* begins, int branches) {
    const int branch = static_cast<int>(blockIdx.x) * warps + static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (branch >= branches) return;
    double sum = 0;
    for (int i = begins[branch] + lane; i < begins[branch + 1]; i += 32) {
        const int32_t target = order[i];
        sum += static_cast<double>(weights[target]) * nll[target];
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) logps[branch] = -sum;
}

struct Pairs {
    double* sums;
    double* coefficients;  ///< or null
    const double* logps;
    const double* reference;  ///< or null
    const double* lengths;
    const int32_t* pairs;
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
        const PairLoss loss = pair_loss(a.mix, pair);
        if (a.coefficients) {
            a.coefficients[a.pairs[2 * i]] = a.scale * loss.d_chosen;
            a.coefficients[a.pairs[2 * i + 1]] = a.scale * loss.d_rejected;
        }
        const PairSums own = sums_of(pair, loss, a.mix.beta, a.reference != nullptr);
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
    target_kernel(double* scales, const double* coefficients, const int32_t* branches, const float* weights,
                  int64_t targets) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i < targets) scales[i] = -coefficients[branches[i]] * static_cast<double>(weights[i]);
}

}  // namespace

void branch_log_probabilities(const Context& ctx, const BranchLogProbabilities& a) {
    const auto branches = static_cast<int>(a.logps.numel());
    if (branches == 0) return;
    branch_kernel<<<(branches + warps - 1) / warps, threads, 0, stream_of(ctx)>>>(
        a.logps.as<double>(), a.nll.as<double>(), a.weights.as<float>(), a.order.as<int32_t>(), a.begins.as<int32_t>(),
        branches);
    check_launch("branch_log_probabilities");
}

void preference_loss(const Context& ctx, const PreferencePairs& a) {
    pairs_kernel<<<1, threads, 0, stream_of(ctx)>>>(
        {.sums = a.sums.as<double>(),
         .coefficients = a.coefficients.empty() ? nullptr : a.coefficients.as<double>(),
         .logps = a.logps.as<double>(),
         .reference = a.reference.empty() ? nullptr : a.reference.as<double>(),
         .lengths = a.lengths.as<double>(),
         .pairs = a.pairs.as<int32_t>(),
         .count = a.pairs.size(0),
         .mix = a.mix,
         .scale = a.scale});
    check_launch("preference_loss");
}

void target_coefficients(const Context& ctx, const TargetCoefficients& a) {
    const int64_t targets = a.scales.numel();
    if (targets == 0) return;
    target_kernel<<<static_cast<unsigned>((targets + threads - 1) / threads), threads, 0, stream_of(ctx)>>>(
        a.scales.as<double>(), a.coefficients.as<double>(), a.branches.as<int32_t>(), a.weights.as<float>(), targets);
    check_launch("target_coefficients");
}

}  // namespace colonnade::cuda
