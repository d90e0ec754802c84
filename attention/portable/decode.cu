// Attention of one token per sequence over its cache. A CTA takes a part of the keys of one sequence for one key/value
// head and up to eight of the query heads that read it, so that keys and values are loaded once for all of them. The
// parts of a row depend on its number of keys alone: one per 64 keys up to `most_parts`, then longer ones. The last CTA
// of a row and head adds the parts in their order.
//
// A tile is 64 keys. P lanes share a key, each with 16 bytes of it (head_dim / 8 of them have some), so that a warp
// reads 32 / P keys at a time. All keys and values of a tile are under way together.

#include "attention/cuda_kernels.h"
#include "engine/device/dependent_launch.cuh"
#include "engine/device/reduce.cuh"
#include "engine/device/vectors.cuh"

namespace colonnade::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps, tile = 64, most_parts = 32, most_dim = 256;

struct Problem {
    __nv_bfloat16* out;
    const __nv_bfloat16 *q, *k, *v;
    const int32_t *slots, *positions;
    int64_t out_row, q_row, q_head, slot_stride, key_stride, head_stride;
    int heads, group, dim, window;
    float scale;    ///< times log2 e
    float* parts;   ///< [rows, heads, most_parts, dim + 2]: sums, then the largest score and the sum of weights
    int* finished;  ///< [rows, kv_heads, groups of query heads]: CTAs that have written their part
};

struct Range {
    int first, end;  ///< keys that the row sees
    int keys;        ///< of a part, a multiple of a tile
    int parts;
};
__device__ Range range_of(const Problem& p, int row) {
    const int end = p.positions[row] + 1, first = p.window > 0 ? max(0, end - p.window) : 0;
    const int tiles = (end - first + tile - 1) / tile;
    const int keys = (tiles + most_parts - 1) / most_parts * tile;
    return {first, end, keys, (end - first + keys - 1) / keys};
}

/// 16 bytes of a key or value, or zero past the end.
__device__ Pack load_chunk(const __nv_bfloat16* from, bool exists) {
    return exists ? load_pack_once<true>(from, pack_size) : zero_pack();
}

template <int lanes, int group>
struct Tile {
    static constexpr int keys_at_once = threads / lanes;  ///< by the CTA
    static constexpr int passes = tile / keys_at_once;
};

template <int lanes, int group>
struct Shared {
    float q[group][lanes * pack_size];
    float scores[group][tile];
    float largest[group], sum[group], keep[group];
    float reduce[warps][group][lanes * pack_size];
    int is_last;
};

/// Adds the parts of the query heads of a CTA, in their order. `factors`: shared memory [count][most_parts].
__device__ void combine(const Problem& p, const Range& range, int row, int first_head, int count, float* factors) {
    const int width = p.dim + 2, warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const float* const parts = p.parts + (static_cast<int64_t>(row) * p.heads + first_head) * most_parts * width;
    static_assert(most_parts == 32, "a lane has one part");
    for (int h = warp; h < count; h += warps) {
        const float* const numbers = parts + (h * most_parts + lane) * width + p.dim;
        const bool exists = lane < range.parts;
        const float own = exists ? __ldcg(numbers) : -INFINITY, sum = exists ? __ldcg(numbers + 1) : 0;
        const float factor = exp2f(own - reduce_lanes<32>(own, Largest()));
        factors[h * most_parts + lane] = factor / reduce_lanes<32>(factor * sum, Add());
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count * p.dim; i += threads) {
        const int h = i / p.dim, e = i % p.dim;
        const float* const from = parts + h * most_parts * width + e;
        float value = 0;
#pragma unroll 8
        for (int n = 0; n < range.parts; ++n) value += factors[h * most_parts + n] * __ldcg(from + n * width);
        p.out[row * p.out_row + (first_head + h) * p.dim + e] = __float2bfloat16_rn(value);
    }
}

template <int lanes, int group>
__global__ void __launch_bounds__(threads) decode_kernel(const __grid_constant__ Problem p) {
    using T = Tile<lanes, group>;
    __shared__ Shared<lanes, group> s;
    allow_next_kernel();
    wait_for_previous_kernels();
    const int row = static_cast<int>(blockIdx.z), part = static_cast<int>(blockIdx.x);
    const Range range = range_of(p, row);
    if (part >= range.parts) return;
    const int head_groups = (p.group + group - 1) / group;
    const int kv_head = static_cast<int>(blockIdx.y) / head_groups,
              in_group = static_cast<int>(blockIdx.y) % head_groups * group;
    const int first_head = kv_head * p.group + in_group, count = min(group, p.group - in_group);
    const int thread = static_cast<int>(threadIdx.x), chunk = thread % lanes, own = thread / lanes;
    const int begin = range.first + part * range.keys, end = min(range.end, begin + range.keys);
    const bool has_chunk = chunk * pack_size < p.dim;
    const int64_t base = p.slots[row] * p.slot_stride + kv_head * p.head_stride + chunk * pack_size;

    Pack keys[T::passes], values[T::passes];
    const auto load = [&](Pack(&to)[T::passes], const __nv_bfloat16* from, int at) {
#pragma unroll
        for (int i = 0; i < T::passes; ++i) {
            const int j = at + i * T::keys_at_once + own;
            to[i] = load_chunk(from + base + j * p.key_stride, has_chunk && j < end);
        }
    };
    load(keys, p.k, begin);
    load(values, p.v, begin);
    for (int i = thread; i < group * p.dim; i += threads) {
        const int h = i / p.dim, e = i % p.dim;
        s.q[h][e] = h < count ? __bfloat162float(p.q[row * p.q_row + (first_head + h) * p.q_head + e]) * p.scale : 0;
    }
    if (thread < group) s.largest[thread] = -INFINITY, s.sum[thread] = 0;
    float acc[group][pack_size] = {};
    __syncthreads();

    for (int at = begin; at < end; at += tile) {
#pragma unroll
        for (int h = 0; h < group; ++h) {
            float q[pack_size];
#pragma unroll
            for (int e = 0; e < pack_size; ++e) q[e] = has_chunk ? s.q[h][chunk * pack_size + e] : 0;
#pragma unroll
            for (int i = 0; i < T::passes; ++i) {
                float dot = 0;
#pragma unroll
                for (int e = 0; e < pack_size; ++e) dot += q[e] * keys[i][e];
                dot = reduce_lanes<lanes>(dot, Add());
                const int j = i * T::keys_at_once + own;
                if (chunk == 0) s.scores[h][j] = at + j < end ? dot : -INFINITY;
            }
        }
        if (at + tile < end) load(keys, p.k, at + tile);
        __syncthreads();
        // A warp has every fourth head: new maximum, weights, and how much of the old sums stays.
        for (int h = thread / 32; h < group; h += warps) {
            const int lane = thread % 32;
            const float a = s.scores[h][lane], b = s.scores[h][lane + 32], old = s.largest[h];
            const float largest = fmaxf(old, reduce_lanes<32>(fmaxf(a, b), Largest()));
            const float wa = exp2f(a - largest), wb = exp2f(b - largest), sum = reduce_lanes<32>(wa + wb, Add());
            s.scores[h][lane] = wa;
            s.scores[h][lane + 32] = wb;
            if (lane == 0) {
                s.keep[h] = exp2f(old - largest);
                s.largest[h] = largest;
                s.sum[h] = s.sum[h] * s.keep[h] + sum;
            }
        }
        __syncthreads();
#pragma unroll
        for (int h = 0; h < group; ++h) {
            const float keep = s.keep[h];
#pragma unroll
            for (int e = 0; e < pack_size; ++e) acc[h][e] *= keep;
#pragma unroll
            for (int i = 0; i < T::passes; ++i) {
                const float weight = s.scores[h][i * T::keys_at_once + own];
#pragma unroll
                for (int e = 0; e < pack_size; ++e) acc[h][e] += weight * values[i][e];
            }
        }
        if (at + tile < end) load(values, p.v, at + tile);
        __syncthreads();
    }

    // Lanes of a warp that have the same chunk, then the warps.
#pragma unroll
    for (int h = 0; h < group; ++h)
#pragma unroll
        for (int e = 0; e < pack_size; ++e) {
            for (int step = lanes; step < 32; step *= 2) acc[h][e] += __shfl_xor_sync(0xffffffffu, acc[h][e], step);
            if (thread % 32 < lanes && has_chunk) s.reduce[thread / 32][h][chunk * pack_size + e] = acc[h][e];
        }
    __syncthreads();
    for (int i = thread; i < count * p.dim; i += threads) {
        const int h = i / p.dim, e = i % p.dim;
        float value = 0;
#pragma unroll
        for (int w = 0; w < warps; ++w) value += s.reduce[w][h][e];
        if (range.parts == 1) {
            p.out[row * p.out_row + (first_head + h) * p.dim + e] = __float2bfloat16_rn(value / s.sum[h]);
            continue;
        }
        float* const to =
            p.parts + ((static_cast<int64_t>(row) * p.heads + first_head + h) * most_parts + part) * (p.dim + 2);
        to[e] = value;
        if (e == 0) to[p.dim] = s.largest[h], to[p.dim + 1] = s.sum[h];
    }
    if (range.parts == 1) return;
    __threadfence();
    __syncthreads();
    int* const finished = p.finished + static_cast<int64_t>(row) * gridDim.y + blockIdx.y;
    if (thread == 0) s.is_last = atomicAdd(finished, 1) == range.parts - 1;
    __syncthreads();
    if (!s.is_last) return;
    __threadfence();
    combine(p, range, row, first_head, count, &s.scores[0][0]);
    if (thread == 0) *finished = 0;
}

int64_t rounded(int64_t bytes) {
    return (bytes + 255) / 256 * 256;
}
int64_t counter_bytes(const DecodeAttentionSizes& s) {
    return rounded(s.rows * s.heads * static_cast<int64_t>(sizeof(int)));
}

template <int lanes, int group>
void launch(const Context& ctx, const Problem& p, int64_t rows, int64_t kv_heads, int64_t longest) {
    const int64_t head_groups = (p.group + group - 1) / group, tiles = (longest + tile - 1) / tile;
    const dim3 ctas(static_cast<unsigned>(std::min<int64_t>(most_parts, tiles)),
                    static_cast<unsigned>(kv_heads * head_groups), static_cast<unsigned>(rows));
    launch_dependent(ctx, decode_kernel<lanes, group>, {.ctas = ctas, .threads = threads}, p);
    check_launch("decode_attention");
}

template <int lanes>
void launch(const Context& ctx, const Problem& p, int64_t rows, int64_t kv_heads, int64_t longest) {
    if (p.group == 1) return launch<lanes, 1>(ctx, p, rows, kv_heads, longest);
    if (p.group == 2) return launch<lanes, 2>(ctx, p, rows, kv_heads, longest);
    if (p.group <= 4) return launch<lanes, 4>(ctx, p, rows, kv_heads, longest);
    launch<lanes, 8>(ctx, p, rows, kv_heads, longest);
}

}  // namespace

int64_t decode_attention_scratch_bytes(const DecodeAttentionSizes& s) {
    return counter_bytes(s) +
           rounded(s.rows * s.heads * most_parts * (s.head_dim + 2) * static_cast<int64_t>(sizeof(float)));
}

void decode_attention(const Context& ctx, const DecodeAttention& a) {
    const int64_t rows = a.q.size(0), heads = a.q.size(1), dim = a.q.size(2), kv_heads = a.k.size(2);
    if (rows == 0) return;
    if (dim > most_dim || !has_packs(a.k) || !has_packs(a.v))
        fail(Exit::config, "head_dim is {}: decoding on a GPU takes multiples of {} up to {}", dim, pack_size,
             most_dim);
    const DecodeAttentionSizes sizes{rows, heads, kv_heads, dim, a.k.size(1)};
    require(a.scratch.numel() >= decode_attention_scratch_bytes(sizes), "decode_attention: scratch is {}, expected {}",
            a.scratch, decode_attention_scratch_bytes(sizes));
    // The counters lie behind all parts, so that a call with fewer rows never writes its parts over them.
    auto* const scratch = reinterpret_cast<char*>(a.scratch.as<uint8_t>());
    char* const counters = scratch + a.scratch.numel() / 256 * 256 - counter_bytes(sizes);
    constexpr double log2_e = 1.4426950408889634;
    const Problem p{.out = as_device<bf16>(a.out),
                    .q = as_device<bf16>(a.q),
                    .k = as_device<bf16>(a.k),
                    .v = as_device<bf16>(a.v),
                    .slots = a.slots.as<int32_t>(),
                    .positions = a.positions.as<int32_t>(),
                    .out_row = a.out.stride[0],
                    .q_row = a.q.stride[0],
                    .q_head = a.q.stride[1],
                    .slot_stride = a.k.stride[0],
                    .key_stride = a.k.stride[1],
                    .head_stride = a.k.stride[2],
                    .heads = static_cast<int>(heads),
                    .group = static_cast<int>(heads / kv_heads),
                    .dim = static_cast<int>(dim),
                    .window = static_cast<int>(a.window),
                    .scale = static_cast<float>(a.scale * log2_e),
                    .parts = reinterpret_cast<float*>(scratch),
                    .finished = reinterpret_cast<int*>(counters)};
    if (dim <= 64) return launch<8>(ctx, p, rows, kv_heads, a.longest);
    if (dim <= 128) return launch<16>(ctx, p, rows, kv_heads, a.longest);
    launch<32>(ctx, p, rows, kv_heads, a.longest);
}

}  // namespace colonnade::cuda
