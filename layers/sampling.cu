// One CTA draws the token of one row. All sums are of whole numbers, so that their order does not matter and a draw is
// the same in every run. The logits stay where they are: each pass over them computes what it needs again.
//
// A threshold (of top_k by count, of top_p by weight) is found digit by digit: with d = largest - logit >= 0 a first pass
// counts the tokens, or adds their weights, by steps of d of 1/32, so that few threads meet at one counter. Within the
// step that is found, three passes go by 11, 11 and 9 bits of d, whose bits as an integer are in the order of d.

#include "engine/device/dependent_launch.cuh"
#include "engine/device/philox.cuh"
#include "engine/device/reduce.cuh"
#include "layers/cuda_kernels.h"

namespace colonnade::cuda {
namespace {

constexpr int threads = 1024, warps = threads / 32, bins = 2048;
constexpr unsigned all_lanes = 0xffffffffu;

struct Problem {
    const float* logits;
    int64_t logit_stride;
    const Sampling* settings;
    int32_t *tokens, *chosen, *positions, *drawn, *seen;
    const int32_t* slots;
    int vocab, words;
};

/// The logits of a row, penalised.
struct Row {
    const float* logits;
    const int32_t* seen;  ///< null: no penalty
    float penalty;
    int vocab;

    __device__ float operator[](int i) const {
        const float x = logits[i];
        if (!seen || !(static_cast<uint32_t>(seen[i / 32]) >> (i % 32) & 1u)) return x;
        return x > 0 ? x / penalty : x * penalty;
    }
};

/// Calls body(i, logit) for all tokens of the row, a thread those at its number and every 1024th after it. Eight loads
/// are under way at a time.
template <typename Body>
__device__ void for_each(const Row& row, const Body& body) {
    constexpr int at_once = 8;
    for (int first = static_cast<int>(threadIdx.x); first < row.vocab; first += at_once * threads) {
        float x[at_once];
#pragma unroll
        for (int n = 0; n < at_once; ++n) x[n] = first + n * threads < row.vocab ? row[first + n * threads] : 0;
#pragma unroll
        for (int n = 0; n < at_once; ++n)
            if (first + n * threads < row.vocab) body(first + n * threads, x[n]);
    }
}

struct Shared {
    unsigned long long histogram[bins];
    unsigned long long numbers[warps];
    float floats[warps];
    int ints[warps];
    unsigned long long above;  ///< of the bins below the one that was found
    int bin, token;
};

/// The sum over all threads; every thread gets it.
__device__ unsigned long long sum_all(unsigned long long value, Shared& shared) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(all_lanes, value, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.numbers[threadIdx.x / 32] = value;
    __syncthreads();
    unsigned long long sum = 0;
    for (int w = 0; w < warps; ++w) sum += shared.numbers[w];
    return sum;
}

struct Largest1 {
    float value;
    int token;
};
__device__ Largest1 larger(Largest1 a, Largest1 b) {
    return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

/// The largest logit with its first token; token -1 if a logit is NaN or the largest one is infinite.
__device__ Largest1 largest_of(const Row& row, Shared& shared) {
    Largest1 best{-INFINITY, row.vocab};
    bool bad = false;
    for_each(row, [&](int i, float x) {
        bad = bad || isnan(x);
        best = larger(best, {x, i});
    });
    for (int step = 16; step > 0; step /= 2)
        best =
            larger(best, {__shfl_xor_sync(all_lanes, best.value, step), __shfl_xor_sync(all_lanes, best.token, step)});
    if (threadIdx.x % 32 == 0) {
        shared.floats[threadIdx.x / 32] = best.value;
        shared.ints[threadIdx.x / 32] = best.token;
    }
    bad = __syncthreads_or(bad);
    best = {shared.floats[0], shared.ints[0]};
    for (int w = 1; w < warps; ++w) best = larger(best, {shared.floats[w], shared.ints[w]});
    if (bad || isinf(best.value)) best.token = -1;
    return best;
}

/// How far below the largest, as bits in the order of the distance.
__device__ uint32_t distance(float largest, float logit) {
    return __float_as_uint(fmaxf(largest - logit, 0.0f));
}

__device__ unsigned long long weight_of(float largest, float logit, float temperature) {
    const float x = (logit - largest) / temperature;
    return x < -28 ? 0 : static_cast<unsigned long long>(static_cast<double>(expf(x)) * 0x1p40 + 0.5);
}

/// Finds the first bin at which the sum of the histogram reaches `enough`, and the sum of the bins before it.
__device__ void find_bin(unsigned long long enough, Shared& shared) {
    __syncthreads();
    if (threadIdx.x < 32) {
        constexpr int per_lane = bins / 32;
        const int lane = static_cast<int>(threadIdx.x);
        unsigned long long mine = 0;
        for (int i = 0; i < per_lane; ++i) mine += shared.histogram[lane * per_lane + i];
        unsigned long long before = mine;  // becomes the sum of the lanes before this one
        for (int step = 1; step < 32; step *= 2) {
            const unsigned long long other = __shfl_up_sync(all_lanes, before, step);
            if (lane >= step) before += other;
        }
        before -= mine;
        if (before < enough && enough <= before + mine) {
            int i = lane * per_lane;
            while (before + shared.histogram[i] < enough) before += shared.histogram[i++];
            shared.bin = i;
            shared.above = before;
        }
    }
    __syncthreads();
}

/// The first digit of a distance: its steps of 1/32, the last for all that are farther than 64.
__device__ int coarse_digit(uint32_t distance) {
    return static_cast<int>(fminf(__uint_as_float(distance) * 32, bins - 1));
}

/// The largest distance that is kept: the amounts of the tokens up to it, amount(logit, distance) each, reach `enough`,
/// which is at least 1 and at most the amount of all tokens.
template <typename Amount>
__device__ uint32_t threshold(const Row& row, float largest, unsigned long long enough, Shared& shared, Amount amount) {
    constexpr int shifts[] = {20, 9, 0}, sizes[] = {11, 11, 9};
    // Adds up the amounts of the tokens with digit_of(distance) >= 0, and returns the digit that is found.
    const auto find = [&](const auto& digit_of) {
        __syncthreads();
        for (int b = static_cast<int>(threadIdx.x); b < bins; b += threads) shared.histogram[b] = 0;
        __syncthreads();
        for_each(row, [&](int, float x) {
            const uint32_t d = distance(largest, x);
            const int digit = digit_of(d);
            if (digit < 0) return;
            if (const unsigned long long a = amount(x, d)) atomicAdd(&shared.histogram[digit], a);
        });
        find_bin(enough, shared);
        enough -= shared.above;
        return shared.bin;
    };
    const int coarse = find([](uint32_t d) { return coarse_digit(d); });
    uint32_t prefix = 0;
#pragma unroll
    for (int pass = 0; pass < 3; ++pass) {
        const int shift = shifts[pass], size = sizes[pass];
        const int digit = find([&](uint32_t d) {
            if (coarse_digit(d) != coarse || (pass > 0 && d >> (shift + size) != prefix)) return -1;
            return static_cast<int>(d >> shift & ((1u << size) - 1));
        });
        prefix = prefix << size | static_cast<uint32_t>(digit);
    }
    return prefix;
}

/// The first token, in the order of ids, at which the sum of the weights passes `target`. A warp has a run of ids.
template <typename Weight>
__device__ int token_at(const Row& row, unsigned long long target, Shared& shared, Weight weight) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int run = (row.vocab + threads - 1) / threads * 32, begin = warp * run, end = min(row.vocab, begin + run);
    unsigned long long mine = 0;
#pragma unroll 8
    for (int i = begin + lane; i < end; i += 32) mine += weight(row[i]);
    for (int step = 16; step > 0; step /= 2) mine += __shfl_xor_sync(all_lanes, mine, step);
    __syncthreads();
    if (lane == 0) shared.numbers[warp] = mine;
    __syncthreads();
    unsigned long long before = 0;
    for (int w = 0; w < warp; ++w) before += shared.numbers[w];
    if (before <= target && target < before + mine) {
        for (int first = begin; first < end; first += 32) {
            const unsigned long long w = first + lane < end ? weight(row[first + lane]) : 0;
            unsigned long long sum = w;
            for (int step = 1; step < 32; step *= 2) {
                const unsigned long long other = __shfl_up_sync(all_lanes, sum, step);
                if (lane >= step) sum += other;
            }
            const unsigned passed = __ballot_sync(all_lanes, before + sum > target);
            if (passed) {
                if (lane == 0) shared.token = first + __ffs(static_cast<int>(passed)) - 1;
                break;
            }
            before += __shfl_sync(all_lanes, sum, 31);
        }
    }
    __syncthreads();
    return shared.token;
}

__device__ int draw(const Row& row, float largest, const Sampling& s, uint64_t drawn, Shared& shared) {
    uint32_t last = __float_as_uint(INFINITY) - 1;  // tokens of a logit of -inf are never drawn
    if (s.top_k > 0 && s.top_k < row.vocab)
        last = min(last, threshold(row, largest, static_cast<unsigned long long>(s.top_k), shared,
                                   [](float, uint32_t) { return 1ull; }));
    const auto weight_up_to = [&](uint32_t limit) {
        return [=](float x) { return distance(largest, x) <= limit ? weight_of(largest, x, s.temperature) : 0ull; };
    };
    if (s.top_p < 1) {
        const auto weight = weight_up_to(last);
        unsigned long long mine = 0;
        for_each(row, [&](int, float x) { mine += weight(x); });
        const unsigned long long all = sum_all(mine, shared);
        const auto enough =
            static_cast<unsigned long long>(ceil(static_cast<double>(s.top_p) * static_cast<double>(all)));
        last = threshold(row, largest, max(enough, 1ull), shared, [&](float x, uint32_t) { return weight(x); });
    }
    const auto least = static_cast<unsigned long long>(ceil(static_cast<double>(s.min_p) * 0x1p40));
    const auto kept = weight_up_to(last);
    const auto weight = [&](float x) {
        const unsigned long long w = kept(x);
        return w < least ? 0 : w;
    };
    unsigned long long mine = 0;
    for_each(row, [&](int, float x) { mine += weight(x); });
    const unsigned long long all = sum_all(mine, shared);
    const uint4 random = philox4x32(make_uint4(static_cast<uint32_t>(drawn), static_cast<uint32_t>(drawn >> 32),
                                               static_cast<uint32_t>(s.stream), static_cast<uint32_t>(s.stream >> 32)),
                                    make_uint2(static_cast<uint32_t>(s.seed), static_cast<uint32_t>(s.seed >> 32)));
    const unsigned long long bits = static_cast<unsigned long long>(random.x) << 32 | random.y;
    return token_at(row, __umul64hi(bits, all), shared, weight);
}

__global__ void __launch_bounds__(threads) sample_kernel(const __grid_constant__ Problem p) {
    __shared__ Shared shared;
    allow_next_kernel();
    wait_for_previous_kernels();
    const int r = static_cast<int>(blockIdx.x);
    const Sampling s = p.settings[r];
    int32_t* const seen = p.seen + static_cast<int64_t>(p.slots[r]) * p.words;
    const Row row{p.logits + r * p.logit_stride, s.repetition_penalty == 1 ? nullptr : seen, s.repetition_penalty,
                  p.vocab};
    const Largest1 best = largest_of(row, shared);
    int token = best.token;
    if (token >= 0 && s.temperature > 0) token = draw(row, best.value, s, static_cast<uint64_t>(p.drawn[r]), shared);
    __syncthreads();  // every thread has read `seen` and `drawn`
    if (threadIdx.x != 0) return;
    p.chosen[r] = token;
    p.tokens[r] = max(token, 0);
    p.drawn[r] += 1;
    p.positions[r] += 1;
    if (token >= 0)
        seen[token / 32] = static_cast<int32_t>(static_cast<uint32_t>(seen[token / 32]) | 1u << (token % 32));
}

}  // namespace

void sample_tokens(const Context& ctx, const SampleTokens& args) {
    const SamplingRows& r = args.rows;
    const int64_t rows = args.logits.size(0);
    if (rows == 0) return;
    const Problem p{.logits = args.logits.as<float>(),
                    .logit_stride = args.logits.stride[0],
                    .settings = reinterpret_cast<const Sampling*>(r.settings.as<uint8_t>()),
                    .tokens = r.tokens.as<int32_t>(),
                    .chosen = r.chosen.as<int32_t>(),
                    .positions = r.positions.as<int32_t>(),
                    .drawn = r.drawn.as<int32_t>(),
                    .seen = r.seen.as<int32_t>(),
                    .slots = r.slots.as<int32_t>(),
                    .vocab = static_cast<int>(args.logits.size(1)),
                    .words = static_cast<int>(r.seen.size(1))};
    launch_dependent(ctx, sample_kernel, {.ctas = dim3(static_cast<unsigned>(rows)), .threads = threads}, p);
    check_launch("sample_tokens");
}

}  // namespace colonnade::cuda
