// A warp works on one head of one token.

#include "engine/device/dependent_launch.cuh"
#include "engine/device/reduce.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps;

struct Append {
    __nv_bfloat16* cache;
    const __nv_bfloat16* heads;
    const int32_t *slots, *positions;
    int64_t slot_stride, position_stride, token_stride;
    int width;  ///< kv_heads * head_dim
};

/// A CTA copies the heads of one token.
template <bool aligned>
__global__ void __launch_bounds__(threads) append_kernel(const __grid_constant__ Append a) {
    const int64_t token = blockIdx.x;
    __nv_bfloat16* const to = a.cache + a.slots[token] * a.slot_stride + a.positions[token] * a.position_stride;
    const __nv_bfloat16* const from = a.heads + token * a.token_stride;
    for (int i = static_cast<int>(threadIdx.x) * pack_size; i < a.width; i += threads * pack_size)
        store_pack<aligned>(to + i, load_pack<aligned>(from + i, a.width - i), a.width - i);
}

struct Heads {
    __nv_bfloat16 *qkv, *k_cache, *v_cache;
    const int32_t *slots, *positions;
    const float *cos, *sin;
    const __nv_bfloat16 *q_norm, *k_norm;
    int64_t row_stride, slot_stride, position_stride, angle_stride;
    int rows, heads, kv_heads, dim;
    float eps;
};

/// A lane has the pairs (i, i + dim / 2) with i = lane + 32 n.
constexpr int most_pairs = 4;

__global__ void __launch_bounds__(threads) heads_kernel(const __grid_constant__ Heads a) {
    allow_next_kernel();
    wait_for_previous_kernels();
    const int lane = static_cast<int>(threadIdx.x) % 32, all_heads = a.heads + 2 * a.kv_heads, half = a.dim / 2;
    const int task = static_cast<int>(blockIdx.x) * warps + static_cast<int>(threadIdx.x) / 32;
    const int row = task / all_heads, head = task % all_heads;
    if (row >= a.rows) return;
    const int position = a.positions[row];
    __nv_bfloat16* const x = a.qkv + row * a.row_stride + head * a.dim;
    const int64_t place = a.slots[row] * a.slot_stride + position * a.position_stride;
    const bool is_query = head < a.heads, is_value = head >= a.heads + a.kv_heads;
    __nv_bfloat16* const to = is_query   ? x
                              : is_value ? a.v_cache + place + (head - a.heads - a.kv_heads) * a.dim
                                         : a.k_cache + place + (head - a.heads) * a.dim;
    float low[most_pairs], high[most_pairs], squares = 0;
#pragma unroll
    for (int n = 0; n < most_pairs; ++n) {
        const int i = lane + 32 * n;
        low[n] = i < half ? __bfloat162float(x[i]) : 0;
        high[n] = i < half ? __bfloat162float(x[i + half]) : 0;
        squares += low[n] * low[n] + high[n] * high[n];
    }
    const __nv_bfloat16* const norm = is_value ? nullptr : is_query ? a.q_norm : a.k_norm;
    float r = 1;
    if (norm) r = rsqrtf(reduce_lanes<32>(squares, Add()) / static_cast<float>(a.dim) + a.eps);
#pragma unroll
    for (int n = 0; n < most_pairs; ++n) {
        const int i = lane + 32 * n;
        if (i >= half) continue;
        float u = low[n], v = high[n];
        if (norm) {
            u *= r * __bfloat162float(norm[i]);
            v *= r * __bfloat162float(norm[i + half]);
        }
        if (!is_value) {
            const float cos = a.cos[position * a.angle_stride + i], sin = a.sin[position * a.angle_stride + i];
            const float turned = u * cos - v * sin;
            v = v * cos + u * sin;
            u = turned;
        }
        to[i] = __float2bfloat16_rn(u);
        to[i + half] = __float2bfloat16_rn(v);
    }
}

}  // namespace

void append_to_cache(const Context& ctx, const AppendToCache& args) {
    const int64_t tokens = args.heads.size(0);
    if (tokens == 0) return;
    const Append a{.cache = as_device<bf16>(args.cache),
                   .heads = as_device<bf16>(args.heads),
                   .slots = args.slots.as<int32_t>(),
                   .positions = args.positions.as<int32_t>(),
                   .slot_stride = args.cache.stride[0],
                   .position_stride = args.cache.stride[1],
                   .token_stride = args.heads.stride[0],
                   .width = static_cast<int>(args.cache.size(2) * args.cache.size(3))};
    const bool aligned = has_packs(args.cache) && has_packs(args.heads);
    const auto kernel = aligned ? append_kernel<true> : append_kernel<false>;
    kernel<<<static_cast<unsigned>(tokens), threads, 0, stream_of(ctx)>>>(a);
    check_launch("append_to_cache");
}

void decode_heads(const Context& ctx, const DecodeHeads& args) {
    const int64_t dim = args.k_cache.size(3), kv_heads = args.k_cache.size(2), rows = args.qkv.size(0);
    const int64_t all_heads = args.qkv.size(1) / dim;
    if (rows == 0) return;
    if (dim > 2 * 32 * most_pairs)
        fail(Exit::config, "head_dim is {}: decoding on a GPU takes at most {}", dim, 2 * 32 * most_pairs);
    const auto norm = [](const Tensor& t) { return t.empty() ? nullptr : as_device<bf16>(t); };
    const Heads a{.qkv = as_device<bf16>(args.qkv),
                  .k_cache = as_device<bf16>(args.k_cache),
                  .v_cache = as_device<bf16>(args.v_cache),
                  .slots = args.slots.as<int32_t>(),
                  .positions = args.positions.as<int32_t>(),
                  .cos = args.cos.as<float>(),
                  .sin = args.sin.as<float>(),
                  .q_norm = norm(args.q_norm),
                  .k_norm = norm(args.k_norm),
                  .row_stride = args.qkv.stride[0],
                  .slot_stride = args.k_cache.stride[0],
                  .position_stride = args.k_cache.stride[1],
                  .angle_stride = args.cos.stride[0],
                  .rows = static_cast<int>(rows),
                  .heads = static_cast<int>(all_heads - 2 * kv_heads),
                  .kv_heads = static_cast<int>(kv_heads),
                  .dim = static_cast<int>(dim),
                  .eps = static_cast<float>(args.eps)};
    const auto ctas = static_cast<unsigned>((rows * all_heads + warps - 1) / warps);
    launch_dependent(ctx, heads_kernel, {.ctas = dim3(ctas), .threads = threads}, a);
    check_launch("decode_heads");
}

}  // namespace colonnade::cuda
