#include "layers/kv_cache.h"

#include <algorithm>
#include <cmath>

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

void check_places(const ShapeCheck& check, const Tensor& cache, const Tensor& slots, const Tensor& positions,
                  int64_t tokens) {
    check("slots", slots, DType::i32, {tokens});
    check("positions", positions, DType::i32, {tokens});
    if (cache.device == Device::cuda) return;
    for (int64_t t = 0; t < tokens; ++t) {
        const int64_t slot = slots.as<int32_t>()[t], position = positions.as<int32_t>()[t];
        require(slot >= 0 && slot < cache.size(0) && position >= 0 && position < cache.size(1),
                "{}: token {} goes to position {} of slot {}, but the cache is {}", check.op(), t, position, slot,
                cache);
    }
}

template <typename T>
T* row_of(const Tensor& cache, int32_t slot, int32_t position) {
    return cache.as<T>() + slot * cache.stride[0] + position * cache.stride[1];
}

template <typename T>
void norm(T* head, const T* weight, int64_t dim, double eps) {
    double square = 0;
    for (int64_t i = 0; i < dim; ++i) square += static_cast<double>(head[i]) * head[i];
    const T r = static_cast<T>(1 / std::sqrt(square / static_cast<double>(dim) + eps));
    for (int64_t i = 0; i < dim; ++i) head[i] = weight[i] * (head[i] * r);
}

template <typename T>
void rotate(T* head, const T* cos, const T* sin, int64_t half) {
    for (int64_t i = 0; i < half; ++i) {
        const T low = head[i], high = head[i + half];
        head[i] = low * cos[i] - high * sin[i];
        head[i + half] = high * cos[i] + low * sin[i];
    }
}

template <typename T>
void on_cpu(const DecodeHeads& a, int64_t heads) {
    const int64_t dim = a.k_cache.size(3), kv_heads = a.k_cache.size(2);
    for (int64_t r = 0; r < a.qkv.size(0); ++r) {
        T* const q = a.qkv.as<T>() + r * a.qkv.stride[0];
        const T* const k = q + heads * dim;
        const int32_t slot = a.slots.as<int32_t>()[r], position = a.positions.as<int32_t>()[r];
        T* const cached = row_of<T>(a.k_cache, slot, position);
        std::copy_n(k, kv_heads * dim, cached);
        std::copy_n(k + kv_heads * dim, kv_heads * dim, row_of<T>(a.v_cache, slot, position));
        for (int64_t h = 0; h < heads + kv_heads; ++h) {
            T* const head = h < heads ? q + h * dim : cached + (h - heads) * dim;
            const Tensor& weight = h < heads ? a.q_norm : a.k_norm;
            if (!weight.empty()) norm(head, weight.as<T>(), dim, a.eps);
            rotate(head, a.cos.as<T>() + position * a.cos.stride[0], a.sin.as<T>() + position * a.sin.stride[0],
                   dim / 2);
        }
    }
}

}  // namespace

void append_to_cache(const Context& ctx, const AppendToCache& a) {
    const ShapeCheck check(ctx, "append_to_cache", a.cache.dtype);
    const int64_t tokens = a.heads.size(0), kv_heads = a.cache.size(2), dim = a.cache.size(3);
    check("cache", a.cache, {a.cache.size(0), a.cache.size(1), kv_heads, dim});
    check("heads", a.heads, {tokens, kv_heads, dim});
    require(a.heads.stride[1] == dim, "append_to_cache: the heads of a token are not side by side");
    check_places(check, a.cache, a.slots, a.positions, tokens);
    const PhaseTimer timer(ctx, "cache");
    if (ctx.device == Device::cuda) return cuda::append_to_cache(ctx, a);
    dispatch_float(a.cache.dtype, [&]<typename T>() {
        for (int64_t t = 0; t < tokens; ++t)
            std::copy_n(a.heads.as<T>() + t * a.heads.stride[0], kv_heads * dim,
                        row_of<T>(a.cache, a.slots.as<int32_t>()[t], a.positions.as<int32_t>()[t]));
    });
}

void decode_heads(const Context& ctx, const DecodeHeads& a) {
    const ShapeCheck check(ctx, "decode_heads", a.qkv.dtype);
    const int64_t rows = a.qkv.size(0), kv_heads = a.k_cache.size(2), dim = a.k_cache.size(3);
    const int64_t heads = a.qkv.size(1) / dim - 2 * kv_heads;
    check("qkv", a.qkv, {rows, (heads + 2 * kv_heads) * dim});
    check("k_cache", a.k_cache, {a.k_cache.size(0), a.k_cache.size(1), kv_heads, dim});
    check.same("v_cache", a.v_cache, a.k_cache);
    check("cos", a.cos, sum_dtype(a.qkv.dtype), {a.cos.size(0), dim / 2});
    check.same("sin", a.sin, a.cos);
    require(a.cos.size(0) >= a.k_cache.size(1), "decode_heads: angles for {} positions of {}", a.cos.size(0),
            a.k_cache.size(1));
    if (!a.q_norm.empty()) check("q_norm", a.q_norm, {dim});
    if (!a.k_norm.empty()) check("k_norm", a.k_norm, {dim});
    check_places(check, a.k_cache, a.slots, a.positions, rows);
    const PhaseTimer timer(ctx, "rope");
    if (ctx.device == Device::cuda) return cuda::decode_heads(ctx, a);
    dispatch_float(a.qkv.dtype, [&]<typename T>() { on_cpu<T>(a, heads); });
}

}  // namespace colonnade
