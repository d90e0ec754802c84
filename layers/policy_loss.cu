// A CTA per sequence. It adds the parts of its threads in a fixed order; then one thread per number adds the sequences.

#include "engine/device/gpu.cuh"
#include "engine/device/reduce.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;

/// Over all threads; every thread gets the result.
__device__ PolicyNumbers cta_sum(PolicyNumbers own) {
    __shared__ PolicyNumbers of_warps[warps];
    for (double& sum : own.sums) sum = reduce_lanes<32>(sum, Add{});
    for (double& extreme : own.extremes) extreme = reduce_lanes<32>(extreme, Largest{});
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = own;
    __syncthreads();
    own = of_warps[0];
    for (int w = 1; w < warps; ++w) add_numbers(own, of_warps[w]);
    return own;
}
__device__ double cta_sum(double own) {
    __shared__ double of_warps[warps];
    own = reduce_lanes<32>(own, Add{});
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = own;
    __syncthreads();
    own = of_warps[0];
    for (int w = 1; w < warps; ++w) own += of_warps[w];
    return own;
}

__global__ void __launch_bounds__(threads) sequence_kernel(PolicyPointers a) {
    const int64_t sequence = blockIdx.x;
    const Stride part{static_cast<int32_t>(threadIdx.x), threads};
    PolicySequenceLoss whole{};
    if (a.terms.settings.ratio != RatioLevel::token) {
        PolicySequence q = ratio_of_terms(a, sequence, part);
        q.log_ratio = cta_sum(q.log_ratio);
        q.kl = cta_sum(q.kl);
        q.importance = cta_sum(q.importance);
        whole = policy_sequence(a.terms.settings, q);
    }
    const PolicyNumbers sum = cta_sum(loss_of_terms(a, sequence, whole, part));
    if (threadIdx.x == 0) a.numbers[sequence] = numbers_of_sequence(a.terms, sequence, sum);
}

__global__ void add_sequences(double* sums, double* extremes, const PolicyNumbers* numbers, int64_t sequences) {
    const int k = static_cast<int>(threadIdx.x), extreme = k - PolicySums::count;
    double total = extreme < 0 ? 0 : extremes[extreme];
#pragma unroll 8
    for (int64_t s = 0; s < sequences; ++s)
        total = extreme < 0 ? total + numbers[s].sums[k] : fmax(total, numbers[s].extremes[extreme]);
    if (extreme < 0)
        sums[k] += total;
    else
        extremes[extreme] = total;
}

__global__ void __launch_bounds__(threads)
    scales_kernel(double* scales, const double* slopes, const int32_t* begins, const int32_t* terms, int64_t targets) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i < targets) scales[i] = scale_from_slopes(begins, terms, slopes, i);
}

__global__ void __launch_bounds__(threads) factors_kernel(float* factors, const float* old, const float* sampled,
                                                          const int32_t* begins, ImportanceSettings settings) {
    const int32_t begin = begins[blockIdx.x] + static_cast<int32_t>(threadIdx.x), end = begins[blockIdx.x + 1];
    double sum = 0;
    for (int32_t t = begin; t < end; t += threads) sum += sampler_log_ratio(old[t], sampled[t]);
    sum = cta_sum(sum);
    for (int32_t t = begin; t < end; t += threads) {
        const double log_ratio = is_of_sequence(settings.mode) ? sum : sampler_log_ratio(old[t], sampled[t]);
        factors[t] = static_cast<float>(importance_factor(settings, log_ratio));
    }
}

}  // namespace

void policy_loss(const Context& ctx, const PolicyLossStep& args) {
    const int64_t sequences = args.terms.lengths.size(0);
    if (sequences == 0) return;
    const PolicyPointers a = pointers_of(args);
    sequence_kernel<<<static_cast<unsigned>(sequences), threads, 0, stream_of(ctx)>>>(a);
    add_sequences<<<1, static_cast<unsigned>(PolicyNumbers::count), 0, stream_of(ctx)>>>(
        args.sums.as<double>(), args.extremes.as<double>(), a.numbers, sequences);
    check_launch("policy_loss");
}

void target_scales(const Context& ctx, const TargetScales& args) {
    const int64_t targets = args.scales.size(0);
    if (targets == 0) return;
    scales_kernel<<<static_cast<unsigned>((targets + threads - 1) / threads), threads, 0, stream_of(ctx)>>>(
        args.scales.as<double>(), args.slopes.as<double>(), args.of_targets.begins.as<int32_t>(),
        args.of_targets.terms.as<int32_t>(), targets);
    check_launch("target_scales");
}

void importance_factors(const Context& ctx, const ImportanceFactors& args) {
    const int64_t sequences = args.begins.size(0) - 1;
    if (sequences == 0) return;
    factors_kernel<<<static_cast<unsigned>(sequences), threads, 0, stream_of(ctx)>>>(
        args.factors.as<float>(), args.old.as<float>(), args.sampled.as<float>(), args.begins.as<int32_t>(),
        args.settings);
    check_launch("importance_factors");
}

}  // namespace colonnade::cuda
