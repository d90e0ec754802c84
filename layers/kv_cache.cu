#include "engine/device/gpu.cuh"
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

}  // namespace colonnade::cuda
