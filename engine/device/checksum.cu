#include "engine/device/checksum.h"
#include "engine/device/gpu.cuh"

namespace colonnade::cuda {
namespace {

constexpr int threads = 256, most_blocks = 2048;

/// checksum_factor of engine/device/checksum.h.
__device__ uint64_t factor(uint64_t i) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) | 1;
}

__global__ void __launch_bounds__(threads)
    add_words(unsigned long long* sum, const uint32_t* words, int64_t count, int64_t first) {
    unsigned long long own = 0;
    for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += int64_t{gridDim.x} * threads)
        own += words[i] * factor(static_cast<uint64_t>(first + i));
    for (int lane = 16; lane > 0; lane /= 2) own += __shfl_down_sync(0xffffffffu, own, lane);
    if (threadIdx.x % 32 == 0) atomicAdd(sum, own);  // integers: the order does not matter
}

}  // namespace

void checksum(const Context& ctx, const Tensor& data, const Tensor& sum, int64_t first) {
    const auto words = static_cast<int64_t>(data.bytes() / 4);
    ctx.gpu->zero(sum);
    const int64_t blocks = std::min<int64_t>(most_blocks, (words + threads - 1) / threads);
    if (blocks == 0) return;
    add_words<<<static_cast<unsigned>(blocks), threads, 0, stream_of(ctx)>>>(
        reinterpret_cast<unsigned long long*>(sum.as<int64_t>()), static_cast<const uint32_t*>(data.data), words,
        first);
    check_launch("checksum");
}

}  // namespace colonnade::cuda
