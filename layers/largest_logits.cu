// One CTA does one row. The k-th largest logit is found digit by digit: four passes count logits by 8 bits of their value
// as an ordered integer. Two more passes take, in the order of ids, all logits above it and as many equal ones as are left;
// so every run takes the same ones. They are sorted in shared memory.

#include "engine/device/gpu.cuh"
#include "engine/device/reduce.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 512, bins = 256, most = LargestLogits::max_k;
static_assert(most <= threads);

struct Problem {
    int32_t* ids;
    float* log_probs;
    const float* logits;
    int64_t stride;
    int vocab, k;
};

/// Bits in the order of the numbers.
__device__ uint32_t ordered(float x) {
    const uint32_t bits = __float_as_uint(x + 0.0f);  // -0 becomes 0, which it equals
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Shared {
    int histogram[bins];
    float slots[2][threads / 32];
    int counts[threads / 32];
    uint32_t prefix;
    int left;  ///< of the k, those that have the digits of `prefix`
    float values[most];
    int32_t ids[most];
};

/// The k-th largest value as ordered bits; shared.left of the k are equal to it.
__device__ uint32_t kth_largest(const float* row, const Problem& p, Shared& shared) {
    if (threadIdx.x == 0) {
        shared.prefix = 0;
        shared.left = p.k;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int bin = static_cast<int>(threadIdx.x); bin < bins; bin += threads) shared.histogram[bin] = 0;
        __syncthreads();
        const uint32_t prefix = shared.prefix, mask = shift == 24 ? 0 : ~0u << (shift + 8);
        for (int v = static_cast<int>(threadIdx.x); v < p.vocab; v += threads) {
            const uint32_t bits = ordered(row[v]);
            if ((bits & mask) == prefix) atomicAdd(&shared.histogram[bits >> shift & 255], 1);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int bin = bins - 1;
            for (; shared.histogram[bin] < shared.left; --bin) shared.left -= shared.histogram[bin];
            shared.prefix |= static_cast<uint32_t>(bin) << shift;
        }
        __syncthreads();
    }
    return shared.prefix;
}

/// The number of threads before this one with `taken`, and of all.
__device__ int2 count_before(bool taken, Shared& shared) {
    const unsigned votes = __ballot_sync(0xffffffffu, taken);
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    if (lane == 0) shared.counts[warp] = __popc(votes);
    __syncthreads();
    int2 count{__popc(votes & ((1u << lane) - 1)), 0};
    for (int w = 0; w < threads / 32; ++w) {
        if (w < warp) count.x += shared.counts[w];
        count.y += shared.counts[w];
    }
    __syncthreads();
    return count;
}

/// Takes the first `wanted` tokens for which `takes(bits)` holds, to places from `place` on.
template <typename Takes>
__device__ void take(const float* row, const Problem& p, int place, int wanted, Shared& shared, const Takes& takes) {
    for (int first = 0; first < p.vocab && wanted > 0; first += threads) {
        const int v = first + static_cast<int>(threadIdx.x);
        const float x = v < p.vocab ? row[v] : 0;
        const bool taken = v < p.vocab && takes(ordered(x));
        const auto [before, all] = count_before(taken, shared);
        if (taken && before < wanted) {
            shared.values[place + before] = x;
            shared.ids[place + before] = v;
        }
        const int done = min(all, wanted);
        place += done;
        wanted -= done;
    }
    __syncthreads();
}

__global__ void __launch_bounds__(threads) largest_kernel(Problem p) {
    __shared__ Shared shared;
    const float* const row = p.logits + blockIdx.x * p.stride;
    float largest = -INFINITY, sum = 0;
    bool bad = false;
    for (int v = static_cast<int>(threadIdx.x); v < p.vocab; v += threads) {
        bad = bad || isnan(row[v]);
        largest = fmaxf(largest, row[v]);
    }
    bad = __syncthreads_or(bad);
    largest = reduce_group<threads, threads>(largest, shared.slots[0], Largest{});
    const int i = static_cast<int>(threadIdx.x);
    int32_t* const ids = p.ids + int64_t{blockIdx.x} * p.k;
    float* const log_probs = p.log_probs + int64_t{blockIdx.x} * p.k;
    if (bad || isinf(largest)) {
        if (i < p.k) {
            ids[i] = -1;
            log_probs[i] = 0;
        }
        return;
    }
    for (int v = i; v < p.vocab; v += threads) sum += expf(row[v] - largest);
    sum = reduce_group<threads, threads>(sum, shared.slots[1], Add{});
    const uint32_t kth = kth_largest(row, p, shared);
    const int equal = shared.left;
    take(row, p, 0, p.k - equal, shared, [kth](uint32_t bits) { return bits > kth; });
    take(row, p, p.k - equal, equal, shared, [kth](uint32_t bits) { return bits == kth; });
    if (i >= p.k) return;
    // Its place in the order: few enough to count.
    int place = 0;
    for (int j = 0; j < p.k; ++j)
        place += shared.values[j] > shared.values[i] ||
                 (shared.values[j] == shared.values[i] && shared.ids[j] < shared.ids[i]);
    ids[place] = shared.ids[i];
    log_probs[place] = shared.values[i] - largest - logf(sum);
}

}  // namespace

void largest_logits(const Context& ctx, const LargestLogits& args) {
    const int64_t rows = args.logits.size(0);
    if (rows == 0) return;
    largest_kernel<<<static_cast<unsigned>(rows), threads, 0, stream_of(ctx)>>>(
        {.ids = args.ids.as<int32_t>(),
         .log_probs = args.log_probs.as<float>(),
         .logits = args.logits.as<float>(),
         .stride = args.logits.stride[0],
         .vocab = static_cast<int>(args.logits.size(1)),
         .k = static_cast<int>(args.ids.size(1))});
    check_launch("largest_logits");
}

}  // namespace colonnade::cuda
