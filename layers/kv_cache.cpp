#include "layers/kv_cache.h"

#include <algorithm>

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

}  // namespace colonnade
