// A thread handles four columns of one token: one Philox block.

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/philox.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

struct Kernel {
    __nv_bfloat16* x;
    int64_t stride;
    const float* scales;
    const int64_t* streams;
    const int32_t* positions;
    int hidden, blocks;
    uint2 seed;
};

__global__ void add_noise(const Kernel a) {
    const int64_t t = blockIdx.x;
    const float scale = a.scales[t];
    const auto stream = static_cast<uint64_t>(a.streams[t]);
    __nv_bfloat16* const row = a.x + t * a.stride;
    for (int b = static_cast<int>(threadIdx.x); b < a.blocks; b += static_cast<int>(blockDim.x)) {
        const uint64_t index = static_cast<uint64_t>(a.positions[t]) * a.blocks + b;
        const uint4 random = philox4x32(make_uint4(static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                                                   static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)),
                                        a.seed);
        const uint32_t words[4] = {random.x, random.y, random.z, random.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int column = 4 * b + e;
            if (column >= a.hidden) break;
            const float u = fmaf(static_cast<float>(words[e]), 0x1p-31f, -1.0f);
            row[column] = __float2bfloat16_rn(fmaf(scale, u, __bfloat162float(row[column])));
        }
    }
}

}  // namespace

void add_embedding_noise(const Context& ctx, const EmbeddingNoise& args) {
    const int64_t tokens = args.x.size(0), hidden = args.x.size(1);
    if (tokens == 0 || hidden == 0) return;
    const Kernel a{.x = as_device<bf16>(args.x),
                   .stride = args.x.stride[0],
                   .scales = args.scales.as<float>(),
                   .streams = args.streams.as<int64_t>(),
                   .positions = args.positions.as<int32_t>(),
                   .hidden = static_cast<int>(hidden),
                   .blocks = static_cast<int>(embedding_noise_blocks(hidden)),
                   .seed = {static_cast<uint32_t>(args.seed), static_cast<uint32_t>(args.seed >> 32)}};
    const int threads = std::clamp((a.blocks + 31) / 32 * 32, 32, 256);
    add_noise<<<static_cast<unsigned>(tokens), threads, 0, stream_of(ctx)>>>(a);
    check_launch("add_embedding_noise");
}

}  // namespace colonnade::cuda
