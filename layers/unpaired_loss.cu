// One CTA: thousands of answers are little work, and every sum has a fixed order.

#include "engine/device/gpu.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256;

/// sums[k] += own[k] of all threads
template <int count>
__device__ void add_over_threads(double* sums, const double (&own)[count]) {
    __shared__ double partial[count][threads];
    const int thread = static_cast<int>(threadIdx.x);
    for (int k = 0; k < count; ++k) partial[k][thread] = own[k];
    for (int width = threads / 2; width > 0; width /= 2) {
        __syncthreads();
        if (thread < width)
            for (int k = 0; k < count; ++k) partial[k][thread] += partial[k][thread + width];
    }
    __syncthreads();
    if (thread < count) sums[thread] += partial[thread][0];
}

__global__ void __launch_bounds__(threads) answers_kernel(double* sums, UnpairedPointers a, int64_t answers) {
    const double z = z_of(a);
    UnpairedSums total{};
    for (int64_t i = threadIdx.x; i < answers; i += threads) {
        const UnpairedSums own = loss_of_answer(a, i, z);
        for (int k = 0; k < UnpairedSums::count; ++k) total.of[k] += own.of[k];
    }
    add_over_threads(sums, total.of);
}

__global__ void __launch_bounds__(threads)
    log_ratios_kernel(double* sum, const double* logps, const double* reference, int64_t answers) {
    double own[1] = {};
    for (int64_t i = threadIdx.x; i < answers; i += threads) own[0] += logps[i] - reference[i];
    add_over_threads(sum, own);
}

}  // namespace

void unpaired_loss(const Context& ctx, const UnpairedAnswers& args) {
    answers_kernel<<<1, threads, 0, stream_of(ctx)>>>(args.sums.as<double>(), pointers_of(args), args.logps.size(0));
    check_launch("unpaired_loss");
}

void add_log_ratios(const Context& ctx, const AddLogRatios& args) {
    log_ratios_kernel<<<1, threads, 0, stream_of(ctx)>>>(args.sum.as<double>(), args.logps.as<double>(),
                                                         args.reference.as<double>(), args.logps.size(0));
    check_launch("add_log_ratios");
}

}  // namespace colonnade::cuda
