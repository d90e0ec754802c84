// One CTA: hundreds of samples with a few answers are little work, and every sum has a fixed order.

#include "engine/device/gpu.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, slots = RankingSums::count + 2;

struct Ranking {
    double* sums;
    double* extremes;
    RankingArrays arrays;
    int64_t samples;
    RankingSettings settings;
};

__global__ void __launch_bounds__(threads) ranking_kernel(Ranking a) {
    __shared__ double partial[slots][threads];
    const int thread = static_cast<int>(threadIdx.x);
    double total[slots] = {};
    total[slots - 2] = total[slots - 1] = -INFINITY;
    for (int64_t s = thread; s < a.samples; s += threads) {
        const RankedSample sample = ranked_sample(a.arrays, s);
        const RankingSums own = rank_answers(a.settings, sample);
        for (int i = 0; i < RankingSums::count; ++i) total[i] += own.of[i];
        for (int32_t i = 0; own.of[RankingSums::samples] > 0 && i < sample.answers; ++i) {
            total[slots - 2] = fmax(total[slots - 2], -sample.score(i));
            total[slots - 1] = fmax(total[slots - 1], sample.score(i));
        }
    }
    for (int i = 0; i < slots; ++i) partial[i][thread] = total[i];
    for (int width = threads / 2; width > 0; width /= 2) {
        __syncthreads();
        if (thread >= width) continue;
        for (int i = 0; i < RankingSums::count; ++i) partial[i][thread] += partial[i][thread + width];
        for (int i = RankingSums::count; i < slots; ++i)
            partial[i][thread] = fmax(partial[i][thread], partial[i][thread + width]);
    }
    __syncthreads();
    if (thread < RankingSums::count) a.sums[thread] += partial[thread][0];
    if (thread < 2) a.extremes[thread] = fmax(a.extremes[thread], partial[RankingSums::count + thread][0]);
}

}  // namespace

void ranking_loss(const Context& ctx, const RankingLoss& a) {
    ranking_kernel<<<1, threads, 0, stream_of(ctx)>>>({.sums = a.sums.as<double>(),
                                                       .extremes = a.extremes.as<double>(),
                                                       .arrays = arrays_of(a),
                                                       .samples = a.sample_begins.numel() - 1,
                                                       .settings = {a.kind, a.center, a.scale}});
    check_launch("ranking_loss");
}

}  // namespace colonnade::cuda
