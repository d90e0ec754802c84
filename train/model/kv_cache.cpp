#include "train/model/kv_cache.h"

namespace colonnade {

KvCache KvCache::lay_out(Arena& arena, const ModelConfig& config, const Sizes& sizes, DType dtype) {
    KvCache cache;
    const auto layer = [&] {
        return arena.tensor("kv cache", dtype,
                            {sizes.slots, sizes.capacity, config.num_key_value_heads, config.head_dim});
    };
    for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
        cache.k.push_back(layer());
        cache.v.push_back(layer());
    }
    return cache;
}

}  // namespace colonnade
