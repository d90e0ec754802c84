#pragma once
// ModelConfig: the shape of a dense decoder of the Llama, Mistral, Qwen2/2.5 or Qwen3 family, read from a Hugging Face
// config.json (both the spelling of transformers v4 and that of v5) or given in the training config.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/io/json.h"
#include "layers/rope.h"

namespace colonnade {

enum class Architecture { llama, mistral, qwen2, qwen3 };

struct ModelConfig {
    Architecture architecture = Architecture::llama;
    int64_t vocab_size = 0;
    int64_t hidden_size = 0;
    int64_t intermediate_size = 0;
    int64_t num_hidden_layers = 0;
    int64_t num_attention_heads = 0;
    int64_t num_key_value_heads = 0;
    int64_t head_dim = 0;
    int64_t max_position_embeddings = 2048;
    double rms_norm_eps = 1e-6;
    double rope_theta = 10000;
    RopeScaling rope_scaling;
    double initializer_range = 0.02;
    bool tie_word_embeddings = false;
    bool score_head = false;  ///< a reward model: the head is score.weight [1, hidden], and there is no other
    bool qkv_bias = false, o_bias = false, mlp_bias = false;
    bool qk_norm = false;                          ///< Qwen3: RMSNorm on every query and key head, before the rotation
    std::vector<int64_t> windows;                  ///< [layers]: sliding window in keys including self; 0: all
    int64_t bos_token_id = -1, pad_token_id = -1;  ///< -1: none
    std::vector<int64_t> eos_token_ids;

    int64_t query_width() const { return num_attention_heads * head_dim; }
    int64_t kv_width() const { return num_key_value_heads * head_dim; }
    int64_t qkv_width() const { return query_width() + 2 * kv_width(); }

    /// What the file said and training does not follow (a dropout rate, say): one line each.
    std::vector<std::string> notices;
};

const char* name_of(Architecture architecture);

/// A config with what makes the family: Qwen2 has biases on q, k and v, Qwen3 norms every query and key head.
ModelConfig family_defaults(Architecture architecture);

/// From <folder>/config.json. Throws Exit::data naming file and key for what is missing, mistyped, inconsistent or not
/// supported (other architectures, activations, rotary kinds, quantised weights).
ModelConfig read_model_config(const std::string& folder);
ModelConfig parse_model_config(const Json& json, const std::string& where);

/// Throws `exit` unless sizes are positive and heads divide: shared by files and training configs.
void validate(const ModelConfig& config, const std::string& where, Exit exit = Exit::config);

/// A config.json that transformers v4 and v5 load.
Json to_json(const ModelConfig& config);

/// Makes `json`, a config.json, that of a reward model: `...ForSequenceClassification` with one label. pad_token_id is how
/// transformers finds the last token of a padded row.
void set_score_head(Json& json, const ModelConfig& config);

}  // namespace colonnade
