// Forward: one CTA per answer. Backward: one thread per column of the weight, which loops over the few answers.

#include "engine/device/gpu.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads) forward_kernel(double* scores, const __nv_bfloat16* hidden, int64_t stride,
                                                          const __nv_bfloat16* weight, int width) {
    __shared__ double partial[threads];
    const __nv_bfloat16* const row = hidden + blockIdx.x * stride;
    double sum = 0;
    for (int j = static_cast<int>(threadIdx.x); j < width; j += threads)
        sum += static_cast<double>(__bfloat162float(row[j])) * static_cast<double>(__bfloat162float(weight[j]));
    partial[threadIdx.x] = sum;
    for (unsigned half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (threadIdx.x == 0) scores[blockIdx.x] = partial[0];
}

struct Backward {
    __nv_bfloat16* dhidden;
    int64_t dhidden_stride;
    float* dweight;  ///< or null
    const double* dscores;
    const __nv_bfloat16* hidden;
    int64_t hidden_stride;
    const __nv_bfloat16* weight;
    int answers, width;
};

__global__ void __launch_bounds__(threads) backward_kernel(Backward a) {
    const int j = static_cast<int>(blockIdx.x * threads + threadIdx.x);
    if (j >= a.width) return;
    const auto weight = static_cast<double>(__bfloat162float(a.weight[j]));
    double sum = 0;
    for (int b = 0; b < a.answers; ++b) {
        a.dhidden[b * a.dhidden_stride + j] = __float2bfloat16_rn(static_cast<float>(a.dscores[b] * weight));
        sum += a.dscores[b] * static_cast<double>(__bfloat162float(a.hidden[b * a.hidden_stride + j]));
    }
    if (a.dweight) a.dweight[j] += static_cast<float>(sum);
}

}  // namespace

void score_forward(const Context& ctx, const ScoreForward& a) {
    if (a.hidden.size(0) == 0) return;
    forward_kernel<<<static_cast<unsigned>(a.hidden.size(0)), threads, 0, stream_of(ctx)>>>(
        a.scores.as<double>(), as_device<bf16>(a.hidden), a.hidden.stride[0], as_device<bf16>(a.weight),
        static_cast<int>(a.weight.size(1)));
    check_launch("score_forward");
}

void score_backward(const Context& ctx, const ScoreBackward& a) {
    const auto width = static_cast<int>(a.weight.size(1));
    backward_kernel<<<static_cast<unsigned>((width + threads - 1) / threads), threads, 0, stream_of(ctx)>>>(
        {.dhidden = as_device<bf16>(a.dhidden),
         .dhidden_stride = a.dhidden.stride[0],
         .dweight = a.dweight.empty() ? nullptr : a.dweight.as<float>(),
         .dscores = a.dscores.as<double>(),
         .hidden = as_device<bf16>(a.hidden),
         .hidden_stride = a.hidden.stride[0],
         .weight = as_device<bf16>(a.weight),
         .answers = static_cast<int>(a.hidden.size(0)),
         .width = width});
    check_launch("score_backward");
}

}  // namespace colonnade::cuda
