// The angles are computed in double, once per batch. A thread that applies them rotates eight pairs of up to four heads
// of one token, so that it reads its angles once for all of them.

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, heads_of_thread = 4, most_half = 128;

struct Angles {
    float *cos, *sin;
    int64_t cos_stride, sin_stride;
    const int32_t* positions;
    unsigned count, half;  ///< tokens * half; half of head_dim
    double attention_factor;
    double inverse[most_half];  ///< frequencies
};

__global__ void __launch_bounds__(threads) angles_kernel(const __grid_constant__ Angles a) {
    const unsigned index = blockIdx.x * threads + threadIdx.x;
    if (index >= a.count) return;
    const unsigned token = index / a.half, i = index % a.half;
    double s, c;
    sincos(a.positions[token] * a.inverse[i], &s, &c);
    a.cos[token * a.cos_stride + i] = static_cast<float>(c * a.attention_factor);
    a.sin[token * a.sin_stride + i] = static_cast<float>(s * a.attention_factor);
}

struct Rotation {
    __nv_bfloat16* x;
    const float *cos, *sin;
    int64_t token_stride, head_stride, cos_stride, sin_stride;
    unsigned count;         ///< threads that have work: tokens * slots * packs
    unsigned packs, slots;  ///< packs per half head; threads that share the heads of a token
    int heads, half;
    float direction;
};

template <bool aligned>
__device__ void load_angles(float (&out)[pack_size], const float* from, int left) {
    if constexpr (aligned) {
        const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else {
#pragma unroll
        for (int e = 0; e < pack_size; ++e) out[e] = e < left ? from[e] : 0;
    }
}

template <bool aligned>
__global__ void __launch_bounds__(threads) apply_kernel(Rotation a) {
    const unsigned index = blockIdx.x * threads + threadIdx.x;
    if (index >= a.count) return;
    const unsigned token_slot = index / a.packs, token = token_slot / a.slots;
    const int column = static_cast<int>(index % a.packs) * pack_size, left = a.half - column;
    const int slot = static_cast<int>(token_slot % a.slots);
    __nv_bfloat16* const x = a.x + token * a.token_stride + column;
    Pack low[heads_of_thread], high[heads_of_thread];
#pragma unroll
    for (int k = 0; k < heads_of_thread; ++k) {
        const int head = slot + k * static_cast<int>(a.slots);
        if (head >= a.heads) continue;
        low[k] = load_pack<aligned>(x + head * a.head_stride, left);
        high[k] = load_pack<aligned>(x + head * a.head_stride + a.half, left);
    }
    float cos[pack_size], sin[pack_size];
    load_angles<aligned>(cos, a.cos + token * a.cos_stride + column, left);
    load_angles<aligned>(sin, a.sin + token * a.sin_stride + column, left);
#pragma unroll
    for (int e = 0; e < pack_size; ++e) sin[e] *= a.direction;
#pragma unroll
    for (int k = 0; k < heads_of_thread; ++k) {
        const int head = slot + k * static_cast<int>(a.slots);
        if (head >= a.heads) continue;
        float turned_low[pack_size], turned_high[pack_size];
#pragma unroll
        for (int e = 0; e < pack_size; ++e) {
            turned_low[e] = low[k][e] * cos[e] - high[k][e] * sin[e];
            turned_high[e] = high[k][e] * cos[e] + low[k][e] * sin[e];
        }
        store_pack<aligned>(x + head * a.head_stride, pack_of(turned_low), left);
        store_pack<aligned>(x + head * a.head_stride + a.half, pack_of(turned_high), left);
    }
}

/// Threads that have work.
unsigned checked_count(const char* op, int64_t count) {
    if (count > INT32_MAX) fail(Exit::internal, "{}: {} pieces of work are more than the kernel counts", op, count);
    return static_cast<unsigned>(count);
}

unsigned ctas_for(unsigned count) {
    return (count + threads - 1) / threads;
}

bool angles_have_packs(const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && t.stride[0] % 4 == 0;
}

}  // namespace

void rope_angles(const Context& ctx, const RopeAngles& args) {
    const std::vector<double>& inverse = args.frequencies.inverse;
    if (inverse.size() > most_half)
        fail(Exit::config, "head_dim is {}: rotary embedding on a GPU takes at most {}", 2 * inverse.size(),
             2 * most_half);
    Angles a{.cos = args.cos.as<float>(),
             .sin = args.sin.as<float>(),
             .cos_stride = args.cos.stride[0],
             .sin_stride = args.sin.stride[0],
             .positions = args.positions.as<int32_t>(),
             .count = checked_count("rope_angles", args.cos.numel()),
             .half = static_cast<unsigned>(inverse.size()),
             .attention_factor = args.frequencies.attention_factor,
             .inverse = {}};
    std::copy(inverse.begin(), inverse.end(), a.inverse);
    if (a.count == 0) return;
    angles_kernel<<<ctas_for(a.count), threads, 0, stream_of(ctx)>>>(a);
    check_launch("rope_angles");
}

void rope_apply(const Context& ctx, const RopeApply& args) {
    const int half = static_cast<int>(args.x.size(2) / 2), heads = static_cast<int>(args.x.size(1));
    const int packs = (half + pack_size - 1) / pack_size, slots = (heads + heads_of_thread - 1) / heads_of_thread;
    const Rotation a{.x = as_device<bf16>(args.x),
                     .cos = args.cos.as<float>(),
                     .sin = args.sin.as<float>(),
                     .token_stride = args.x.stride[0],
                     .head_stride = args.x.stride[1],
                     .cos_stride = args.cos.stride[0],
                     .sin_stride = args.sin.stride[0],
                     .count = checked_count("rope_apply", args.x.size(0) * slots * packs),
                     .packs = static_cast<unsigned>(packs),
                     .slots = static_cast<unsigned>(slots),
                     .heads = heads,
                     .half = half,
                     .direction = args.backward ? -1.0f : 1.0f};
    if (a.count == 0) return;
    // The second half of a head is aligned if the first is and half is a multiple of a pack.
    const bool aligned =
        has_packs(args.x) && half % pack_size == 0 && angles_have_packs(args.cos) && angles_have_packs(args.sin);
    const auto kernel = aligned ? apply_kernel<true> : apply_kernel<false>;
    kernel<<<ctas_for(a.count), threads, 0, stream_of(ctx)>>>(a);
    check_launch("rope_apply");
}

}  // namespace colonnade::cuda
