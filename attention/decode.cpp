#include "attention/decode.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/cuda_kernels.h"
#include "engine/device/vector_math.h"
#include "engine/device/wide_vectors.h"

namespace colonnade {
namespace {

constexpr int64_t keys_of_part = 256;  // their scores stay in the first cache

/// Sums over some keys of a row, for one query head.
template <typename T>
struct Part {
    T largest, sum;
    T* out;  ///< [head_dim]
};

template <typename T>
struct Keys {
    const T *k, *v;
    int64_t stride, count;
};

template <typename T>
COLONNADE_WIDE_VECTORS void attend(const Part<T>& old, T* scores, const T* q, const Keys<T>& keys, int64_t dim, T scale,
                                   Part<T>& part) {
    T largest = old.largest;
    for (int64_t j = 0; j < keys.count; ++j) {
        const T* const k = keys.k + j * keys.stride;
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < dim; ++i) dot += q[i] * k[i];
        scores[j] = dot * scale;
        largest = std::max(largest, scores[j]);
    }
    const T keep = vexp(old.largest - largest);
    T sum = old.sum * keep;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < keys.count; ++j) sum += scores[j] = vexp(scores[j] - largest);
    T* const out = part.out;
#pragma omp simd
    for (int64_t i = 0; i < dim; ++i) out[i] *= keep;
    for (int64_t j = 0; j < keys.count; ++j) {
        const T p = scores[j], *const v = keys.v + j * keys.stride;
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) out[i] += p * v[i];
    }
    part.largest = largest;
    part.sum = sum;
}

template <typename T>
void norm_head(T* head, const T* weight, int64_t dim, double eps) {
    double square = 0;
    for (int64_t i = 0; i < dim; ++i) square += static_cast<double>(head[i]) * head[i];
    const T r = static_cast<T>(1 / std::sqrt(square / static_cast<double>(dim) + eps));
    for (int64_t i = 0; i < dim; ++i) head[i] = weight[i] * (head[i] * r);
}

template <typename T>
void rotate_head(T* head, const T* cos, const T* sin, int64_t half) {
    for (int64_t i = 0; i < half; ++i) {
        const T low = head[i], high = head[i + half];
        head[i] = low * cos[i] - high * sin[i];
        head[i + half] = high * cos[i] + low * sin[i];
    }
}

/// Copies a head of the token, normed and rotated.
template <typename T>
void turn_head(const DecodeAttention& a, int64_t row, const T* from, const Tensor& norm, T* to) {
    const int64_t dim = a.out.size(2), position = a.positions.as<int32_t>()[row];
    std::copy_n(from, dim, to);
    if (!norm.empty()) norm_head(to, norm.as<T>(), dim, a.eps);
    if (!a.cos.empty())
        rotate_head(to, a.cos.as<T>() + position * a.cos.stride[0], a.sin.as<T>() + position * a.sin.stride[0],
                    dim / 2);
}

/// Writes the token's keys and values to the cache.
template <typename T>
void append(const DecodeAttention& a, int64_t row) {
    const int64_t dim = a.out.size(2), kv_heads = a.k.size(2);
    const T* const k = a.qkv.as<T>() + row * a.qkv.stride[0] + a.out.size(1) * dim;
    const int64_t place = a.slots.as<int32_t>()[row] * a.k.stride[0] + a.positions.as<int32_t>()[row] * a.k.stride[1];
    for (int64_t h = 0; h < kv_heads; ++h) {
        const int64_t to = place + h * a.k.stride[2];
        turn_head(a, row, k + h * dim, a.k_norm, a.k.as<T>() + to);
        std::copy_n(k + (kv_heads + h) * dim, dim, a.v.as<T>() + to);
    }
}

template <typename T>
void row_head(const DecodeAttention& a, int64_t row, int64_t head) {
    const int64_t dim = a.out.size(2), group = a.out.size(1) / a.k.size(2);
    const int64_t length = a.positions.as<int32_t>()[row] + 1;
    const int64_t first = a.window > 0 ? std::max<int64_t>(0, length - a.window) : 0;
    const int64_t begin = a.slots.as<int32_t>()[row] * a.k.stride[0] + head / group * a.k.stride[2];
    std::vector<T> q(static_cast<size_t>(dim));
    turn_head(a, row, a.qkv.as<T>() + row * a.qkv.stride[0] + head * dim, a.q_norm, q.data());
    T* const out = a.out.as<T>() + row * a.out.stride[0] + head * a.out.stride[1];
    std::fill_n(out, dim, T{0});
    Part<T> sums{-std::numeric_limits<T>::infinity(), 0, out};
    T scores[keys_of_part];
    for (int64_t j = first; j < length; j += keys_of_part) {
        const int64_t at = begin + j * a.k.stride[1];
        const Keys<T> keys{a.k.as<T>() + at, a.v.as<T>() + at, a.k.stride[1], std::min(keys_of_part, length - j)};
        const Part<T> old = sums;
        attend(old, scores, q.data(), keys, dim, static_cast<T>(a.scale), sums);
    }
    for (int64_t i = 0; i < dim; ++i) out[i] /= sums.sum;
}

void check_tensor(const char* name, const Tensor& found, const Tensor& expected) {
    bool held = found.rank == expected.rank && found.dtype == expected.dtype && found.device == expected.device &&
                found.stride[static_cast<size_t>(found.rank - 1)] == 1;
    for (int d = 0; held && d < found.rank; ++d) held = found.size(d) == expected.size(d);
    require(held, "decode_attention: {} is {} on {}, expected {} on {}", name, found, found.device, expected,
            expected.device);
}

void check(const Context& ctx, const DecodeAttention& a) {
    const DType dtype = a.qkv.dtype;
    const int64_t rows = a.out.size(0), heads = a.out.size(1), dim = a.out.size(2), kv_heads = a.k.size(2);
    require((dtype == DType::bf16) == (ctx.device == Device::cuda), "decode_attention: no kernel for {} on {}", dtype,
            ctx.device);
    const auto shape = [&](DType t, std::initializer_list<int64_t> s) { return Tensor(nullptr, t, s, ctx.device); };
    check_tensor("qkv", a.qkv, shape(dtype, {rows, (heads + 2 * kv_heads) * dim}));
    check_tensor("out", a.out, shape(dtype, {rows, heads, dim}));
    check_tensor("k", a.k, shape(dtype, {a.k.size(0), a.k.size(1), kv_heads, dim}));
    check_tensor("v", a.v, a.k);
    require(a.v.stride == a.k.stride, "decode_attention: k and v have other strides");
    check_tensor("slots", a.slots, shape(DType::i32, {rows}));
    check_tensor("positions", a.positions, shape(DType::i32, {rows}));
    if (!a.q_norm.empty()) check_tensor("q_norm", a.q_norm, shape(dtype, {dim}));
    if (!a.k_norm.empty()) check_tensor("k_norm", a.k_norm, shape(dtype, {dim}));
    if (!a.cos.empty()) {
        check_tensor("cos", a.cos, shape(sum_dtype(dtype), {a.cos.size(0), dim / 2}));
        check_tensor("sin", a.sin, a.cos);
        require(a.cos.size(0) >= a.k.size(1) && dim % 2 == 0 && a.sin.stride == a.cos.stride,
                "decode_attention: angles {} for a cache of {}", a.cos, a.k);
    }
    require(kv_heads > 0 && heads % kv_heads == 0, "decode_attention: {} heads on {} kv_heads", heads, kv_heads);
    require(a.longest >= 1 && a.longest <= a.k.size(1), "decode_attention: up to {} keys in a cache of {}", a.longest,
            a.k.size(1));
    if (ctx.device == Device::cuda) return;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t slot = a.slots.as<int32_t>()[r], position = a.positions.as<int32_t>()[r];
        require(slot >= 0 && slot < a.k.size(0) && position >= 0 && position < a.longest,
                "decode_attention: row {} is at position {} of slot {}; the cache is {}, used up to {}", r, position,
                slot, a.k, a.longest);
    }
}

}  // namespace

int64_t decode_attention_scratch_bytes(Device device, const DecodeAttentionSizes& sizes) {
    return device == Device::cuda ? cuda::decode_attention_scratch_bytes(sizes) : 0;
}

void decode_attention(const Context& ctx, const DecodeAttention& a) {
    check(ctx, a);
    const PhaseTimer timer(ctx, "attention");
    if (ctx.device == Device::cuda) return cuda::decode_attention(ctx, a);
    const int64_t rows = a.out.size(0), heads = a.out.size(1), tasks = rows * heads;
    constexpr int64_t parallel_from = 1 << 14;  // multiply-adds
    dispatch_float(a.qkv.dtype, [&]<typename T>() {
        for (int64_t r = 0; r < rows; ++r) append<T>(a, r);
#pragma omp parallel for schedule(static) if (tasks * a.longest * a.out.size(2) >= parallel_from)
        for (int64_t i = 0; i < tasks; ++i) row_head<T>(a, i / heads, i % heads);
    });
}

}  // namespace colonnade
