// Attention of one token per sequence over its cache. A CTA takes a part of the keys of one sequence for one key/value
// head and up to eight of the query heads that read it, so that keys and values are loaded once for all of them. The
// parts of a row depend on its number of keys alone: one per 64 keys up to `most_parts`, then longer ones. The last CTA
// of a row and head adds the parts in their order.
//
// A CTA norms and rotates the query heads that it has. The one whose part ends with the token does so with its key, too,
// takes key and value from shared memory, and writes them to the cache.
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
    __nv_bfloat16 *out, *k, *v;
    const __nv_bfloat16 *qkv, *q_norm, *k_norm;
    const int32_t *slots, *positions;
    const float *cos, *sin;
    int64_t out_row, qkv_row, slot_stride, key_stride, head_stride, angle_stride;
    int heads, kv_heads, group, dim, window;
    float scale;  ///< times log2 e
    float eps;
    bool read_early;
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
    Pack key[lanes], value[lanes];  ///< of the token
    float scores[group][tile];
    float largest[group], sum[group], keep[group];
    float reduce[warps][group][lanes * pack_size];
    int is_last;
};

/// Norms and rotates one head of the token, and hands on its elements. A warp has a head, and a lane the pairs
/// (i, i + dim / 2) with i = lane + 32 n.
template <typename Take>
__device__ void turn_head(const Problem& p, const __nv_bfloat16* x, const __nv_bfloat16* norm, int position,
                          Take take) {
    constexpr int most_pairs = most_dim / 2 / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32, half = p.dim / 2;
    float low[most_pairs], high[most_pairs], squares = 0;
#pragma unroll
    for (int n = 0; n < most_pairs; ++n) {
        const int i = lane + 32 * n;
        low[n] = i < half ? __bfloat162float(x[i]) : 0;
        high[n] = i < half ? __bfloat162float(x[i + half]) : 0;
        squares += low[n] * low[n] + high[n] * high[n];
    }
    float r = 1;
    if (norm) r = rsqrtf(reduce_lanes<32>(squares, Add()) / static_cast<float>(p.dim) + p.eps);
#pragma unroll
    for (int n = 0; n < most_pairs; ++n) {
        const int i = lane + 32 * n;
        if (i >= half) continue;
        float u = low[n], v = high[n];
        if (norm) {
            u *= r * __bfloat162float(norm[i]);
            v *= r * __bfloat162float(norm[i + half]);
        }
        if (p.cos) {
            const float cos = p.cos[position * p.angle_stride + i], sin = p.sin[position * p.angle_stride + i];
            const float turned = u * cos - v * sin;
            v = v * cos + u * sin;
            u = turned;
        }
        take(i, u);
        take(i + half, v);
    }
}

/// Where a CTA is.
struct Place {
    int row, position, kv_head, first_head, count;  ///< count: query heads
    bool has_token;                                 ///< its part ends with the token
};

/// The token's heads that the CTA needs, in shared memory.
template <int lanes, int group>
__device__ void take_token(const Problem& p, const Place& at, Shared<lanes, group>& s) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const __nv_bfloat16* const heads = p.qkv + at.row * p.qkv_row;
    const auto head = [&](int h) { return heads + h * p.dim; };
    for (int h = warp; h < (at.has_token ? group + 2 : group); h += warps) {
        if (h < at.count) {
            turn_head(p, head(at.first_head + h), p.q_norm, at.position,
                      [&](int i, float x) { s.q[h][i] = x * p.scale; });
        } else if (h < group) {
            for (int i = lane; i < p.dim; i += 32) s.q[h][i] = 0;
        } else if (h == group) {
            auto* const key = reinterpret_cast<__nv_bfloat16*>(s.key);
            turn_head(p, head(p.heads + at.kv_head), p.k_norm, at.position,
                      [&](int i, float x) { key[i] = __float2bfloat16_rn(x); });
        } else if (lane * pack_size < p.dim) {
            s.value[lane] = load_pack<true>(head(p.heads + p.kv_heads + at.kv_head) + lane * pack_size, pack_size);
        }
    }
}

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
    if (!p.read_early) wait_for_previous_kernels();
    const int row = static_cast<int>(blockIdx.z), part = static_cast<int>(blockIdx.x);
    const Range range = range_of(p, row);
    if (part >= range.parts) return;
    const int head_groups = (p.group + group - 1) / group;
    const int kv_head = static_cast<int>(blockIdx.y) / head_groups,
              in_group = static_cast<int>(blockIdx.y) % head_groups * group;
    const int first_head = kv_head * p.group + in_group, count = min(group, p.group - in_group);
    const int thread = static_cast<int>(threadIdx.x), chunk = thread % lanes, own = thread / lanes;
    const int begin = range.first + part * range.keys, end = min(range.end, begin + range.keys);
    const int position = range.end - 1;
    const bool has_chunk = chunk * pack_size < p.dim;
    const int64_t base = p.slots[row] * p.slot_stride + kv_head * p.head_stride + chunk * pack_size;

    Pack keys[T::passes], values[T::passes];
    const auto load = [&](Pack(&to)[T::passes], const __nv_bfloat16* from, int at) {
#pragma unroll
        for (int i = 0; i < T::passes; ++i) {
            const int j = at + i * T::keys_at_once + own;
            to[i] = load_chunk(from + base + j * p.key_stride, has_chunk && j < min(end, position));
        }
    };
    load(keys, p.k, begin);
    load(values, p.v, begin);
    if (p.read_early) wait_for_previous_kernels();
    const bool has_token = end == range.end;
    take_token(p, Place{row, position, kv_head, first_head, count, has_token}, s);
    if (thread < group) s.largest[thread] = -INFINITY, s.sum[thread] = 0;
    float acc[group][pack_size] = {};
    __syncthreads();
    if (has_token && in_group == 0 && own == 0 && has_chunk) {
        store_pack<true>(p.k + base + position * p.key_stride, s.key[chunk], pack_size);
        store_pack<true>(p.v + base + position * p.key_stride, s.value[chunk], pack_size);
    }

    for (int at = begin; at < end; at += tile) {
        if (at + tile > position && has_token && has_chunk)
#pragma unroll
            for (int i = 0; i < T::passes; ++i)
                if (at + i * T::keys_at_once + own == position) keys[i] = s.key[chunk], values[i] = s.value[chunk];
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
    const int64_t rows = a.out.size(0), heads = a.out.size(1), dim = a.out.size(2), kv_heads = a.k.size(2);
    if (rows == 0) return;
    if (dim > most_dim || !has_packs(a.k) || !has_packs(a.v))
        fail(Exit::config, "head_dim is {}: decoding on a GPU takes multiples of {} up to {}", dim, pack_size,
             most_dim);
    require(has_packs(a.qkv), "decode_attention: qkv is {} with rows of {} elements", a.qkv, a.qkv.stride[0]);
    const DecodeAttentionSizes sizes{rows, heads, kv_heads, dim, a.k.size(1)};
    require(a.scratch.numel() >= decode_attention_scratch_bytes(sizes), "decode_attention: scratch is {}, expected {}",
            a.scratch, decode_attention_scratch_bytes(sizes));
    // The counters lie behind all parts, so that a call with fewer rows never writes its parts over them.
    auto* const scratch = reinterpret_cast<char*>(a.scratch.as<uint8_t>());
    char* const counters = scratch + a.scratch.numel() / 256 * 256 - counter_bytes(sizes);
    constexpr double log2_e = 1.4426950408889634;
    const auto norm = [](const Tensor& t) { return t.empty() ? nullptr : as_device<bf16>(t); };
    const auto angles = [](const Tensor& t) { return t.empty() ? nullptr : t.as<float>(); };
    const Problem p{.out = as_device<bf16>(a.out),
                    .k = as_device<bf16>(a.k),
                    .v = as_device<bf16>(a.v),
                    .qkv = as_device<bf16>(a.qkv),
                    .q_norm = norm(a.q_norm),
                    .k_norm = norm(a.k_norm),
                    .slots = a.slots.as<int32_t>(),
                    .positions = a.positions.as<int32_t>(),
                    .cos = angles(a.cos),
                    .sin = angles(a.sin),
                    .out_row = a.out.stride[0],
                    .qkv_row = a.qkv.stride[0],
                    .slot_stride = a.k.stride[0],
                    .key_stride = a.k.stride[1],
                    .head_stride = a.k.stride[2],
                    .angle_stride = a.cos.empty() ? 0 : a.cos.stride[0],
                    .heads = static_cast<int>(heads),
                    .kv_heads = static_cast<int>(kv_heads),
                    .group = static_cast<int>(heads / kv_heads),
                    .dim = static_cast<int>(dim),
                    .window = static_cast<int>(a.window),
                    .scale = static_cast<float>(a.scale * log2_e),
                    .eps = static_cast<float>(a.eps),
                    .read_early = a.read_early,
                    .parts = reinterpret_cast<float*>(scratch),
                    .finished = reinterpret_cast<int*>(counters)};
    if (dim <= 64) return launch<8>(ctx, p, rows, kv_heads, a.longest);
    if (dim <= 128) return launch<16>(ctx, p, rows, kv_heads, a.longest);
    launch<32>(ctx, p, rows, kv_heads, a.longest);
}

}  // namespace colonnade::cuda
