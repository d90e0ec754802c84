// Softmax, loss and gradient of one row of logits per CTA, in two passes over the row. In the first, every thread keeps
// a running maximum and the sum of exp(x - maximum). The second writes the gradient in place; it runs backwards, to
// begin with what is still in the caches. Each logit is read from memory once and written once.
//
// A row may have any length and alignment. Its edge is up to seven elements before the first aligned 16 bytes and up to
// seven after the last; each belongs to one of the first threads.

#include "engine/device/gpu.cuh"
#include "engine/device/reduce.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 512, packs_of_turn = 4;
constexpr float log2_e = 1.44269504088896341f;

struct Losses {
    double* nll;
    uint8_t* correct;  ///< or null
    __nv_bfloat16* logits;
    int64_t stride;
    const int32_t* targets;
    const double* scales;  ///< null in evaluation
    int vocab;
};

/// 2^x to 2 ulp; results below the smallest normal float are 0.
__device__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// The value to subtract from logits with this maximum: a row of -inf must not give inf - inf.
__device__ float offset_of(float largest) {
    return largest == -INFINITY ? 0.0f : largest;
}

/// Position of the row's aligned packs and of its edge.
struct Extent {
    int head, packs, edge;  ///< elements before the packs; packs; elements before and after them

    __device__ Extent(const __nv_bfloat16* row, int vocab) {
        const auto misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(row) % sizeof(Pack));
        head = min(vocab, (static_cast<int>(sizeof(Pack)) - misaligned) % static_cast<int>(sizeof(Pack)) / 2);
        packs = (vocab - head) / pack_size;
        edge = vocab - packs * pack_size;
    }
    __device__ int column_of_pack(int pack) const { return head + pack * pack_size; }
    __device__ int column_of_edge(int i) const { return i < head ? i : packs * pack_size + i; }
    /// The thread that reads and writes this column.
    __device__ int owner(int column) const {
        if (column < head) return column;
        return column >= column_of_pack(packs) ? column - packs * pack_size : (column - head) / pack_size % threads;
    }
};

__device__ __nv_bfloat162 pair_of(uint32_t word) {
    return __halves2bfloat162(__ushort_as_bfloat16(static_cast<uint16_t>(word)),
                              __ushort_as_bfloat16(static_cast<uint16_t>(word >> 16)));
}

/// The largest logit of the packs, ignoring NaN.
__device__ float largest_of(const Pack (&packs)[packs_of_turn]) {
    __nv_bfloat162 largest = pair_of(packs[0].words[0]);
#pragma unroll
    for (int w = 1; w < 4 * packs_of_turn; ++w) largest = __hmax2(largest, pair_of(packs[w / 4].words[w % 4]));
    return fmaxf(__low2float(largest), __high2float(largest));
}

struct Softmax {
    float largest, sum;  ///< of exp(logits - largest)
};

/// The first pass: this thread's share of the row.
__device__ Softmax first_pass(const __nv_bfloat16* row, const Extent& extent) {
    Softmax own{-INFINITY, 0};
    const int thread = static_cast<int>(threadIdx.x);
    for (int first = thread; first < extent.packs; first += threads * packs_of_turn) {
        Pack packs[packs_of_turn];
#pragma unroll
        for (int k = 0; k < packs_of_turn; ++k) {
            const int pack = first + k * threads;
            constexpr uint32_t nothing = 0xff80ff80;  // twice -inf
            packs[k] = pack < extent.packs ? load_pack<true>(row + extent.column_of_pack(pack), pack_size)
                                           : Pack{{nothing, nothing, nothing, nothing}};
        }
        const float largest = fmaxf(own.largest, largest_of(packs)), offset = offset_of(largest);
        own.sum *= exp2_of((own.largest - offset) * log2_e);
        own.largest = largest;
        float sums[packs_of_turn] = {};
#pragma unroll
        for (int k = 0; k < packs_of_turn; ++k)
#pragma unroll
            for (int e = 0; e < pack_size; ++e) sums[k] += exp2_of((packs[k][e] - offset) * log2_e);
        own.sum += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
    if (thread < extent.edge) {
        const float x = __bfloat162float(row[extent.column_of_edge(thread)]);
        const float largest = fmaxf(own.largest, x), offset = offset_of(largest);
        own.sum = own.sum * exp2_of((own.largest - offset) * log2_e) + exp2_of((x - offset) * log2_e);
        own.largest = largest;
    }
    return own;
}
static_assert(packs_of_turn == 4);

/// The second pass: replaces logits by scale * softmax. The target's element is corrected later.
__device__ void write_gradient(__nv_bfloat16* row, const Extent& extent, const Softmax& all, float scale) {
    const int thread = static_cast<int>(threadIdx.x);
    const float log2_sum = log2f(all.sum);
    const auto gradient = [&](float x) { return scale * exp2_of((x - all.largest) * log2_e - log2_sum); };
    constexpr int turn = threads * packs_of_turn;
    for (int first = (extent.packs + turn - 1) / turn * turn - turn + thread; first >= 0; first -= turn) {
        Pack packs[packs_of_turn];
#pragma unroll
        for (int k = 0; k < packs_of_turn; ++k) {
            const int pack = first + k * threads;
            if (pack < extent.packs) packs[k] = load_pack_once<true>(row + extent.column_of_pack(pack), pack_size);
        }
#pragma unroll
        for (int k = 0; k < packs_of_turn; ++k) {
            const int pack = first + k * threads;
            if (pack >= extent.packs) continue;
            float values[pack_size];
#pragma unroll
            for (int e = 0; e < pack_size; ++e) values[e] = gradient(packs[k][e]);
            store_pack_once<true>(row + extent.column_of_pack(pack), pack_of(values), pack_size);
        }
    }
    if (thread < extent.edge) {
        __nv_bfloat16& x = row[extent.column_of_edge(thread)];
        x = __float2bfloat16_rn(gradient(__bfloat162float(x)));
    }
}

__device__ void write_zeros(__nv_bfloat16* row, const Extent& extent) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int pack = thread; pack < extent.packs; pack += threads)
        store_pack<true>(row + extent.column_of_pack(pack), zero_pack(), pack_size);
    if (thread < extent.edge) row[extent.column_of_edge(thread)] = __float2bfloat16_rn(0.0f);
}

__global__ void __launch_bounds__(threads, 2) losses_kernel(Losses a) {
    __shared__ float slots[2][threads / 32];
    __nv_bfloat16* const row = a.logits + blockIdx.x * a.stride;
    const int target = a.targets[blockIdx.x];
    const Extent extent(row, a.vocab);
    const float at_target = __bfloat162float(row[target]);  // before any thread writes the row

    const Softmax own = first_pass(row, extent);
    Softmax all;
    all.largest = reduce_group<threads, threads>(own.largest, slots[0], Largest{});
    const float share = own.sum * exp2_of((own.largest - offset_of(all.largest)) * log2_e);
    all.sum = reduce_group<threads, threads>(share, slots[1], Add{});
    if (threadIdx.x == 0) {
        a.nll[blockIdx.x] = log(static_cast<double>(all.sum)) + (static_cast<double>(all.largest) - at_target);
        if (a.correct) a.correct[blockIdx.x] = at_target == all.largest;
    }
    if (!a.scales) return;

    const auto scale = static_cast<float>(a.scales[blockIdx.x]);
    if (scale == 0) return write_zeros(row, extent);  // multiplying by 0 would leave NaN if a logit is not finite
    write_gradient(row, extent, all, scale);
    if (static_cast<int>(threadIdx.x) == extent.owner(target)) {
        const float probability = exp2_of((at_target - all.largest) * log2_e - log2f(all.sum));
        row[target] = __float2bfloat16_rn(scale * (probability - 1));
    }
}

}  // namespace

void row_losses(const Context& ctx, const HeadLoss& args) {
    const bool evaluation = args.dhidden.empty() && args.dweight.empty();
    const Losses a{.nll = args.nll.as<double>(),
                   .correct = args.correct.empty() ? nullptr : args.correct.as<uint8_t>(),
                   .logits = as_device<bf16>(args.logits),
                   .stride = args.logits.stride[0],
                   .targets = args.targets.as<int32_t>(),
                   .scales = evaluation ? nullptr : args.scales.as<double>(),
                   .vocab = static_cast<int>(args.logits.size(1))};
    if (args.logits.size(0) == 0) return;
    losses_kernel<<<static_cast<unsigned>(args.logits.size(0)), threads, 0, stream_of(ctx)>>>(a);
    check_launch("head_loss");
}

}  // namespace colonnade::cuda
