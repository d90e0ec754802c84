#include "engine/device/gpu.cuh"
#include "train/optimizer/muon_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256;

unsigned blocks_for(int64_t elements) {
    return static_cast<unsigned>((elements + threads - 1) / threads);
}

__global__ void __launch_bounds__(threads)
    momentum(float* m, float* g, const double* clip, float keep, float take, int64_t elements) {
    const float factor = static_cast<float>(clip[1]);
    const int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (isnan(factor) || i >= elements) return;
    const float gradient = factor * g[i];
    const float now = keep * m[i] + take * gradient;
    m[i] = now;
    g[i] = keep * now + take * gradient;
}

__global__ void __launch_bounds__(threads)
    normalise(__nv_bfloat16* x, const float* u, const double* sum, int64_t elements) {
    const int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (i >= elements) return;
    const float scale = static_cast<float>(1 / fmax(sqrt(*sum), muon_epsilon));
    x[i] = __float2bfloat16_rn(scale * u[i]);
}

__global__ void __launch_bounds__(threads) apply(__nv_bfloat16* top, int16_t* low, const __nv_bfloat16* x,
                                                 const double* clip, float keep, float step, int64_t elements) {
    const int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (isnan(clip[1]) || i >= elements) return;
    const float before = __uint_as_float(joined_float(__bfloat16_as_ushort(top[i]), low[i]));
    const SplitFloat now = split_float(__float_as_uint(keep * before - step * __bfloat162float(x[i])));
    top[i] = __ushort_as_bfloat16(now.top);
    low[i] = now.low;
}

}  // namespace

void muon_momentum(const Context& ctx, const MuonStep& a, const MuonCoefficients& c) {
    const int64_t n = a.m.numel();
    momentum<<<blocks_for(n), threads, 0, stream_of(ctx)>>>(a.m.as<float>(), a.gradients.as<float>(),
                                                            a.clip.as<double>(), static_cast<float>(c.momentum),
                                                            static_cast<float>(1 - c.momentum), n);
    check_launch("muon momentum");
}

void muon_normalise(const Context& ctx, const Tensor& x, const Tensor& u, const Tensor& sum) {
    const int64_t n = x.numel();
    normalise<<<blocks_for(n), threads, 0, stream_of(ctx)>>>(as_device<bf16>(x), u.as<float>(), sum.as<double>(), n);
    check_launch("muon normalise");
}

void muon_apply(const Context& ctx, const MuonStep& a, const Tensor& x, const MuonCoefficients& c) {
    const int64_t n = x.numel();
    apply<<<blocks_for(n), threads, 0, stream_of(ctx)>>>(
        as_device<bf16>(a.weights), a.low.as<int16_t>(), as_device<bf16>(x), a.clip.as<double>(),
        static_cast<float>(c.keep), static_cast<float>(c.step_size), n);
    check_launch("muon apply");
}

}  // namespace colonnade::cuda
