// A thread widens eight elements. The kernels are limited by memory bandwidth: they read half a byte or a byte of each
// weight, and write two.

#include <cuda_fp8.h>

#include "engine/device/gpu.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, copies = 32;

struct Nf4 {
    __nv_bfloat16* out;
    const uint8_t *codes, *scales;
    const float *nested, *mean, *map;
    int64_t count;
};

__device__ int64_t element_of_thread() {
    return (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * pack_size;
}
__device__ int left_from(int64_t at, int64_t count) {
    return static_cast<int>(count - at < pack_size ? count - at : pack_size);
}

/// A copy of the 16 values for each lane: no two lanes of a warp ask one bank for different words.
template <bool aligned>
__global__ void __launch_bounds__(threads) nf4_kernel(Nf4 a) {
    __shared__ float values[16 * copies];
    constexpr float table[16] = {nf4_values[0],  nf4_values[1],  nf4_values[2],  nf4_values[3],
                                 nf4_values[4],  nf4_values[5],  nf4_values[6],  nf4_values[7],
                                 nf4_values[8],  nf4_values[9],  nf4_values[10], nf4_values[11],
                                 nf4_values[12], nf4_values[13], nf4_values[14], nf4_values[15]};
    for (int i = static_cast<int>(threadIdx.x); i < 16 * copies; i += threads) values[i] = table[i / copies];
    __syncthreads();
    const int64_t at = element_of_thread();
    if (at >= a.count) return;
    const int64_t block = at / QuantisedMatrix::nf4_block;
    const float scale =
        __fadd_rn(__fmul_rn(a.map[a.scales[block]], a.nested[block / QuantisedMatrix::nf4_scales]), *a.mean);
    const float* const mine = values + threadIdx.x % copies;
    const int left = left_from(at, a.count);
    uint32_t codes = 0;
    if constexpr (aligned)
        codes = *reinterpret_cast<const uint32_t*>(a.codes + at / 2);
    else
        for (int e = 0; e < left; e += 2) codes |= uint32_t{a.codes[(at + e) / 2]} << e * 4;
    float out[pack_size];
#pragma unroll
    for (int e = 0; e < pack_size; ++e) out[e] = mine[(codes >> (e / 2 * 8 + (e % 2 ? 0 : 4)) & 15u) * copies] * scale;
    store_pack<aligned>(a.out + at, pack_of(out), left);
}

struct Fp8 {
    __nv_bfloat16* out;
    const uint8_t* codes;
    const float* scales;
    int64_t count;
    int columns, across;
};

__device__ float value_of(uint8_t code) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

__device__ float scale_at(const Fp8& a, int64_t i) {
    const auto row = static_cast<int>(i / a.columns), column = static_cast<int>(i % a.columns);
    constexpr int block = QuantisedMatrix::fp8_block;
    return a.scales[row / block * a.across + column / block];
}

/// aligned: rows are multiples of eight elements, too, so that a pack has one scale.
template <bool aligned>
__global__ void __launch_bounds__(threads) fp8_kernel(Fp8 a) {
    const int64_t at = element_of_thread();
    if (at >= a.count) return;
    const int left = left_from(at, a.count);
    float out[pack_size] = {};
    if constexpr (aligned) {
        const uint2 codes = *reinterpret_cast<const uint2*>(a.codes + at);
        const float scale = scale_at(a, at);
#pragma unroll
        for (int e = 0; e < pack_size; ++e)
            out[e] = value_of(static_cast<uint8_t>((e < 4 ? codes.x : codes.y) >> e % 4 * 8)) * scale;
    } else {
        for (int e = 0; e < left; ++e) out[e] = value_of(a.codes[at + e]) * scale_at(a, at + e);
    }
    store_pack<aligned>(a.out + at, pack_of(out), left);
}

unsigned ctas_of(int64_t count) {
    constexpr int64_t per_cta = int64_t{threads} * pack_size;
    return static_cast<unsigned>((count + per_cta - 1) / per_cta);
}

}  // namespace

void dequantise(const Context& ctx, const Dequantise& args) {
    const QuantisedMatrix& m = args.in;
    if (m.numel() == 0) return;
    const bool aligned = has_packs(args.out);
    const unsigned ctas = ctas_of(m.numel());
    if (m.code == WeightCode::fp8) {
        const auto kernel = aligned ? fp8_kernel<true> : fp8_kernel<false>;
        kernel<<<ctas, threads, 0, stream_of(ctx)>>>({.out = as_device<bf16>(args.out),
                                                      .codes = m.codes.as<uint8_t>(),
                                                      .scales = m.scales.as<float>(),
                                                      .count = m.numel(),
                                                      .columns = static_cast<int>(m.columns),
                                                      .across = static_cast<int>(m.scales.size(1))});
    } else {
        const auto kernel = aligned ? nf4_kernel<true> : nf4_kernel<false>;
        kernel<<<ctas, threads, 0, stream_of(ctx)>>>({.out = as_device<bf16>(args.out),
                                                      .codes = m.codes.as<uint8_t>(),
                                                      .scales = m.scales.as<uint8_t>(),
                                                      .nested = m.nested.as<float>(),
                                                      .mean = m.nested.as<float>() + m.nested.numel() - 1,
                                                      .map = m.map.as<float>(),
                                                      .count = m.numel()});
    }
    check_launch("dequantise");
}

}  // namespace colonnade::cuda
