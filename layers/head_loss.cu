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

/// What scale_i comes from.
enum class Scales { given, dft, policy, teacher };
enum class Entropy { left_out, computed };

struct Teacher {
    double* divergences;
    const int32_t* ids;
    const float* log_probs;
    int k;
    double beta, weight, target_weight;
};

struct Losses {
    double* nll;
    uint8_t* correct;  ///< or null
    double* entropy;   ///< null with Entropy::left_out
    __nv_bfloat16* logits;
    int64_t stride;
    const int32_t* targets;
    const double* scales;  ///< null in evaluation, and with Scales::policy
    TermPointers terms;    ///< with Scales::policy
    Teacher teacher;       ///< with Scales::teacher
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
    float below;         ///< with Entropy::computed: sum of exp(x) x, x = logits - largest
};

/// e x, 0 for a logit of -inf.
__device__ float times(float e, float x) {
    return e > 0 ? e * x : 0;
}

/// Moves the sums to a larger maximum.
template <Entropy entropy>
__device__ void move_to(Softmax& own, float largest, float offset) {
    const float shift = own.largest - offset, factor = exp2_of(shift * log2_e);
    if constexpr (entropy == Entropy::computed) own.below = times(factor, own.below + times(own.sum, shift));
    own.sum *= factor;
    own.largest = largest;
}

/// The first pass: this thread's share of the row.
template <Entropy entropy>
__device__ Softmax first_pass(const __nv_bfloat16* row, const Extent& extent) {
    Softmax own{-INFINITY, 0, 0};
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
        move_to<entropy>(own, largest, offset);
        float sums[packs_of_turn] = {}, below[packs_of_turn] = {};
#pragma unroll
        for (int k = 0; k < packs_of_turn; ++k)
#pragma unroll
            for (int e = 0; e < pack_size; ++e) {
                const float x = packs[k][e] - offset, exp_x = exp2_of(x * log2_e);
                sums[k] += exp_x;
                if constexpr (entropy == Entropy::computed) below[k] += times(exp_x, x);
            }
        own.sum += (sums[0] + sums[1]) + (sums[2] + sums[3]);
        if constexpr (entropy == Entropy::computed) own.below += (below[0] + below[1]) + (below[2] + below[3]);
    }
    if (thread < extent.edge) {
        const float x = __bfloat162float(row[extent.column_of_edge(thread)]);
        const float largest = fmaxf(own.largest, x), offset = offset_of(largest);
        move_to<entropy>(own, largest, offset);
        const float exp_x = exp2_of((x - offset) * log2_e);
        own.sum += exp_x;
        if constexpr (entropy == Entropy::computed) own.below += times(exp_x, x - offset);
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

__device__ double nll_of(const Softmax& all, float at_target) {
    return log(static_cast<double>(all.sum)) + (static_cast<double>(all.largest) - at_target);
}

__device__ int lane_of_thread() {
    return static_cast<int>(threadIdx.x) % 32;
}

/// scale_i, for every thread. The first warp computes it, because double arithmetic is slow.
template <Scales scales>
__device__ float scale_of_row(const Losses& a, const Softmax& all, float at_target) {
    if constexpr (scales == Scales::given) {
        return static_cast<float>(a.scales[blockIdx.x]);
    } else {
        __shared__ float slot;
        if (threadIdx.x < 32) {
            const double nll = nll_of(all, at_target);
            double scale;
            if constexpr (scales == Scales::dft) {
                scale = given_scale(TokenLoss::dft, a.scales[blockIdx.x], nll);
            } else {
                scale = scale_of_target(a.terms, blockIdx.x, nll, {lane_of_thread(), 32});
                scale = reduce_lanes<32>(scale, Add{});
            }
            if (threadIdx.x == 0) slot = static_cast<float>(scale);
        }
        __syncthreads();
        return slot;
    }
}

/// log of the sum of exp(values[i]), by a warp.
__device__ double log_sum_exp_of_warp(const double* values, int count) {
    double top = -INFINITY, sum = 0;
    for (int i = lane_of_thread(); i < count; i += 32) top = fmax(top, values[i]);
    top = reduce_lanes<32>(top, Largest{});
    for (int i = lane_of_thread(); i < count; i += 32) sum += exp(values[i] - top);
    return top + log(reduce_lanes<32>(sum, Add{}));
}

/// distillation_loss() by a warp.
__device__ DistillationLoss distillation_loss_of_warp(double beta, const TopTokens& top, double* slopes) {
    const int k = static_cast<int>(top.k);
    const double log_sum = log_sum_exp_of_warp(top.student, k);
    const ValueAndSlope tail = log_tail(log_sum);
    const double of_teacher = log_tail(log_sum_exp_of_warp(top.teacher, k)).value;
    const ValueAndSlope rest = divergence_of_bucket(beta, of_teacher, tail.value);
    double value = 0, slope_sum = 0;
    for (int i = lane_of_thread(); i < k; i += 32) {
        const ValueAndSlope own = divergence_of_bucket(beta, top.teacher[i], top.student[i]);
        slopes[i] = own.slope + rest.slope * tail.slope * exp(top.student[i] - log_sum);
        value += own.value;
        slope_sum += slopes[i];
    }
    return {rest.value + reduce_lanes<32>(value, Add{}), reduce_lanes<32>(slope_sum, Add{})};
}

/// The divergence from the teacher and, in training, its gradient. All threads call it.
__device__ void distillation_row(const Losses& a, __nv_bfloat16* row, const Extent& extent, const Softmax& all,
                                 float at_target) {
    __shared__ double teacher[TeacherTokens::max_k], student[TeacherTokens::max_k], slopes[TeacherTokens::max_k];
    __shared__ double slope_sum;
    const int32_t* const ids = a.teacher.ids + int64_t{blockIdx.x} * a.teacher.k;
    const float* const log_probs = a.teacher.log_probs + int64_t{blockIdx.x} * a.teacher.k;
    if (threadIdx.x < 32) {
        const double log_total = nll_of(all, at_target) + static_cast<double>(at_target);
        int k = 0;
        for (int i = lane_of_thread(); i < a.teacher.k; i += 32) {
            if (ids[i] < 0) continue;
            teacher[i] = static_cast<double>(log_probs[i]);
            student[i] = static_cast<double>(__bfloat162float(row[ids[i]])) - log_total;
            ++k;
        }
        k = __reduce_add_sync(0xffffffffu, k);
        DistillationLoss loss{0, 0};
        if (k > 0) loss = distillation_loss_of_warp(a.teacher.beta, {teacher, student, k}, slopes);
        if (threadIdx.x == 0) {
            a.teacher.divergences[blockIdx.x] = loss.value;
            slope_sum = loss.slope_sum;
        }
    }
    __syncthreads();
    if (!a.scales) return;
    const double scale = a.scales[blockIdx.x];
    if (scale == 0) return write_zeros(row, extent);
    const double weight = a.teacher.weight, target_weight = a.teacher.target_weight;
    const double softmax_slope = target_weight - weight * slope_sum;
    write_gradient(row, extent, all, static_cast<float>(scale * softmax_slope));
    __syncthreads();
    const int target = a.targets[blockIdx.x];
    if (threadIdx.x == 0 && target_weight != 0) {
        const double probability = exp(-nll_of(all, at_target));
        row[target] = __float2bfloat16_rn(static_cast<float>(scale * (softmax_slope * probability - target_weight)));
    }
    __syncthreads();  // the target may be in the list
    const int i = static_cast<int>(threadIdx.x);
    if (i < a.teacher.k && ids[i] >= 0) {
        const double slope =
            weight * slopes[i] + softmax_slope * exp(student[i]) - (ids[i] == target ? target_weight : 0);
        row[ids[i]] = __float2bfloat16_rn(static_cast<float>(scale * slope));
    }
}

/// The gradient of the target's nll. All threads call it.
template <Scales scales>
__device__ void target_gradient(const Losses& a, __nv_bfloat16* row, const Extent& extent, const Softmax& all,
                                float at_target) {
    const int target = a.targets[blockIdx.x];
    const float scale = scale_of_row<scales>(a, all, at_target);
    if (scale == 0) return write_zeros(row, extent);  // multiplying by 0 would leave NaN if a logit is not finite
    write_gradient(row, extent, all, scale);
    if (static_cast<int>(threadIdx.x) == extent.owner(target)) {
        const float probability = exp2_of((at_target - all.largest) * log2_e - log2f(all.sum));
        row[target] = __float2bfloat16_rn(scale * (probability - 1));
    }
}

/// In evaluation `scales` is `given`, and none are, or `teacher`.
template <Scales scales, Entropy entropy>
__global__ void __launch_bounds__(threads, 2) losses_kernel(Losses a) {
    __shared__ float slots[2][threads / 32];
    __nv_bfloat16* const row = a.logits + blockIdx.x * a.stride;
    const int target = a.targets[blockIdx.x];
    const Extent extent(row, a.vocab);
    const float at_target = __bfloat162float(row[target]);  // before any thread writes the row

    Softmax own = first_pass<entropy>(row, extent);
    Softmax all{};
    all.largest = reduce_group<threads, threads>(own.largest, slots[0], Largest{});
    move_to<entropy>(own, all.largest, offset_of(all.largest));
    all.sum = reduce_group<threads, threads>(own.sum, slots[1], Add{});
    if constexpr (entropy == Entropy::computed) all.below = reduce_group<threads, threads>(own.below, slots[0], Add{});
    if (threadIdx.x == 0) {
        a.nll[blockIdx.x] = nll_of(all, at_target);
        if (a.correct) a.correct[blockIdx.x] = at_target == all.largest;
        if constexpr (entropy == Entropy::computed) {
            const auto sum = static_cast<double>(all.sum);
            a.entropy[blockIdx.x] = log(sum) - static_cast<double>(all.below) / sum;
        }
    }
    if constexpr (scales == Scales::teacher) {
        distillation_row(a, row, extent, all, at_target);
    } else {
        if (scales == Scales::policy || a.scales) target_gradient<scales>(a, row, extent, all, at_target);
    }
}

template <Scales scales>
void launch(const Context& ctx, const Losses& a, int64_t rows) {
    const auto ctas = static_cast<unsigned>(rows);
    if (a.entropy)
        losses_kernel<scales, Entropy::computed><<<ctas, threads, 0, stream_of(ctx)>>>(a);
    else
        losses_kernel<scales, Entropy::left_out><<<ctas, threads, 0, stream_of(ctx)>>>(a);
    check_launch("head_loss");
}

Teacher teacher_of(const TeacherTokens& t) {
    return {.divergences = t.divergences.as<double>(),
            .ids = t.ids.as<int32_t>(),
            .log_probs = t.log_probs.as<float>(),
            .k = static_cast<int>(t.ids.size(1)),
            .beta = t.beta,
            .weight = t.weight,
            .target_weight = t.target_weight};
}

}  // namespace

void row_losses(const Context& ctx, const HeadLoss& args) {
    const bool evaluation = args.dhidden.empty() && args.dweight.empty(), policy = !evaluation && args.policy;
    const Losses a{.nll = args.nll.as<double>(),
                   .correct = args.correct.empty() ? nullptr : args.correct.as<uint8_t>(),
                   .entropy = args.entropy.empty() ? nullptr : args.entropy.as<double>(),
                   .logits = as_device<bf16>(args.logits),
                   .stride = args.logits.stride[0],
                   .targets = args.targets.as<int32_t>(),
                   .scales = evaluation || policy ? nullptr : args.scales.as<double>(),
                   .terms = policy ? pointers_of(*args.policy) : TermPointers{},
                   .teacher = args.teacher ? teacher_of(*args.teacher) : Teacher{},
                   .vocab = static_cast<int>(args.logits.size(1))};
    const int64_t rows = args.logits.size(0);
    if (rows == 0) return;
    if (args.teacher) return launch<Scales::teacher>(ctx, a, rows);
    if (policy) return launch<Scales::policy>(ctx, a, rows);
    if (args.token_loss == TokenLoss::dft && !evaluation) return launch<Scales::dft>(ctx, a, rows);
    launch<Scales::given>(ctx, a, rows);
}

}  // namespace colonnade::cuda
