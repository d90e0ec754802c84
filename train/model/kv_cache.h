#pragma once
// KvCache: keys and values of the tokens that sequences have read, for generation. Each sequence has a slot.

#include "engine/device/arena.h"
#include "train/model/model_config.h"

namespace colonnade {

struct KvCache {
    std::vector<Tensor> k, v;  ///< per layer [slots, capacity, kv_heads, head_dim]

    struct Sizes {
        int64_t slots = 1;
        int64_t capacity = 1;  ///< tokens of a sequence
    };
    static KvCache lay_out(Arena& arena, const ModelConfig& config, const Sizes& sizes, DType dtype);
    int64_t capacity() const { return k.front().size(1); }
};

/// Where a forward pass puts the keys and values of its tokens. Without `keys` its rows hold whole beginnings of
/// sequences, which see their own tokens alone. With `keys` there is one pack, the next piece of one sequence, whose
/// tokens see the first `keys` rows of the slot, themselves at the end.
struct CacheWrite {
    const KvCache& cache;
    Tensor slots, positions;  ///< i32 [tokens]
    int64_t slot = 0, keys = 0;

    /// What attention sees of a layer's keys or values: [1, keys, kv_heads, head_dim].
    Tensor seen(const Tensor& layer) const { return layer.slice(0, slot, slot + 1).slice(1, 0, keys); }
};

}  // namespace colonnade
