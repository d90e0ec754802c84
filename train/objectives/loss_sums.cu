#include "engine/device/gpu.cuh"
#include "train/objectives/loss_sums.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 1024;

// One block: ten thousand targets are little work, and the order of summation is fixed.
__global__ void __launch_bounds__(threads) add_sums(double* sums, const double* nll, const uint8_t* correct,
                                                    const double* weights, TokenLoss loss, int64_t targets) {
    __shared__ double partial[3][threads];
    double own[3] = {};
    for (int64_t i = threadIdx.x; i < targets; i += threads) {
        const double weight = weights[i];
        own[0] += weight * token_loss(loss, -nll[i]).value;
        own[1] += weight;
        own[2] += weight * correct[i];
    }
    for (int s = 0; s < 3; ++s) partial[s][threadIdx.x] = own[s];
    for (int width = threads / 2; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width)
            for (int s = 0; s < 3; ++s) partial[s][threadIdx.x] += partial[s][threadIdx.x + width];
    }
    __syncthreads();
    if (threadIdx.x < 3) sums[threadIdx.x] += partial[threadIdx.x][0];
}

}  // namespace

void add_loss_sums(const Context& ctx, const AddLossSums& a) {
    add_sums<<<1, threads, 0, stream_of(ctx)>>>(a.sums.as<double>(), a.nll.as<double>(), a.correct.as<uint8_t>(),
                                                a.weights.as<double>(), a.loss, a.weights.numel());
    check_launch("add_loss_sums");
}

}  // namespace colonnade::cuda
