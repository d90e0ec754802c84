#include "engine/device/gpu.cuh"
#include "train/objectives/loss_sums.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 1024;

struct Losses {
    const double *nll, *divergences, *weights;  ///< divergences: or null
    const uint8_t* correct;
    TokenLoss loss;
    double divergence_weight, nll_weight;
};

// One block: ten thousand targets are little work, and the order of summation is fixed.
template <int count>
__global__ void __launch_bounds__(threads) add_sums(double* sums, Losses a, int64_t targets) {
    __shared__ double partial[count][threads];
    double own[count] = {};
    for (int64_t i = threadIdx.x; i < targets; i += threads) {
        const double weight = a.weights[i];
        own[1] += weight;
        own[2] += weight * a.correct[i];
        if constexpr (count == 3) {
            own[0] += weight * token_loss(a.loss, -a.nll[i]).value;
        } else {
            own[0] += weight * (a.divergence_weight * a.divergences[i] + a.nll_weight * a.nll[i]);
            own[3] += weight * a.divergences[i];
            own[4] += weight * a.nll[i];
        }
    }
    for (int s = 0; s < count; ++s) partial[s][threadIdx.x] = own[s];
    for (int width = threads / 2; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width)
            for (int s = 0; s < count; ++s) partial[s][threadIdx.x] += partial[s][threadIdx.x + width];
    }
    __syncthreads();
    if (threadIdx.x < count) sums[threadIdx.x] += partial[threadIdx.x][0];
}

}  // namespace

void add_loss_sums(const Context& ctx, const AddLossSums& a) {
    const Losses losses{.nll = a.nll.as<double>(),
                        .divergences = a.divergences.empty() ? nullptr : a.divergences.as<double>(),
                        .weights = a.weights.as<double>(),
                        .correct = a.correct.as<uint8_t>(),
                        .loss = a.loss,
                        .divergence_weight = a.divergence_weight,
                        .nll_weight = a.nll_weight};
    const auto launch = [&](auto kernel) {
        kernel<<<1, threads, 0, stream_of(ctx)>>>(a.sums.as<double>(), losses, a.weights.numel());
        check_launch("add_loss_sums");
    };
    losses.divergences ? launch(add_sums<5>) : launch(add_sums<3>);
}

}  // namespace colonnade::cuda
