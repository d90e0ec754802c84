#pragma once
// The settings of the rotary embedding in a config.json, from all places where transformers 5.24 looks for them
// (modeling_rope_utils.py): `rope_scaling`, else `rope_parameters`, whose values come before the same keys at the top
// level, except that original_max_position_embeddings at the top level comes first.

#include "engine/io/json_keys.h"
#include "train/model/model_config.h"

namespace colonnade {

/// Sets rope_theta and rope_scaling; `config` has max_position_embeddings. Adds a notice for a value that another place
/// overrides, and for a key that the kind of scaling does not use. Throws Exit::data for kinds that are not supported,
/// for settings by layer, and if two places contradict each other in a way in which transformers loses one.
void read_rope(const JsonKeys& top, ModelConfig& config);

}  // namespace colonnade
