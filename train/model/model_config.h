#pragma once
// ModelConfig: the shape of a dense decoder of one of the families in train/model/model_family.h. It is read from a
// Hugging Face config.json (as transformers v4 or v5 writes it) or made from a ModelShape.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/io/json.h"
#include "layers/rope.h"
#include "train/model/model_family.h"

namespace colonnade {

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
    bool score_head = false;  ///< a reward model: its only head is score.weight [1, hidden]
    bool qkv_bias = false, o_bias = false, mlp_bias = false;
    bool qk_norm = false;                          ///< RMSNorm on every query and key head, before the rotation
    std::vector<int64_t> windows;                  ///< [layers]: keys that a query sees, itself included; 0: all
    int64_t bos_token_id = -1, pad_token_id = -1;  ///< -1: none
    std::vector<int64_t> eos_token_ids;

    int64_t query_width() const { return num_attention_heads * head_dim; }
    int64_t kv_width() const { return num_key_value_heads * head_dim; }
    int64_t qkv_width() const { return query_width() + 2 * kv_width(); }

    /// Settings of the file that training does not follow, such as a dropout rate: one line each.
    std::vector<std::string> notices;
};

/// A config with the biases and norms that the family always has.
ModelConfig family_defaults(Architecture architecture);

/// The sizes of a model that starts from random weights; the family settles the rest.
struct ModelShape {
    Architecture architecture = Architecture::llama;
    int64_t hidden_size = 0;
    int64_t intermediate_size = 0;
    int64_t num_hidden_layers = 0;
    int64_t num_attention_heads = 0;
    int64_t num_key_value_heads = 0;
    int64_t head_dim = 0;
    int64_t vocab_size = 0;
    int64_t max_position_embeddings = 2048;
    double rope_theta = 10000;
    double rms_norm_eps = 1e-6;
    bool tie_word_embeddings = false;
    int64_t sliding_window = 0;  ///< keys that a query sees, itself included; 0: all before it
    double initializer_range = 0.02;
};

/// The model of a shape. Throws Exit::config, naming `where`, if validate() does.
ModelConfig model_of(const ModelShape& shape, const std::string& where);

/// Reads <path>/config.json, or makes the config of a GGUF file. Throws Exit::data naming file and key for a value that
/// is missing, mistyped, inconsistent or not supported (other architectures, activations, rotary kinds, quantised
/// weights). A head that is tied by the config, but differs from the embedding in the folder's weights, is kept: the
/// config becomes untied, with a notice, as in transformers.
ModelConfig read_model_config(const std::string& path);
ModelConfig parse_model_config(const Json& json, const std::string& where);

/// Throws `exit` unless all sizes are in range and the heads divide. Files and training configs share these checks.
void validate(const ModelConfig& config, const std::string& where, Exit exit = Exit::config);

/// A config.json that transformers v4 and v5 load.
Json to_json(const ModelConfig& config);

/// Turns a config.json into that of a reward model: `...ForSequenceClassification` with one label. transformers needs
/// pad_token_id to find the last token of a padded row.
void set_score_head(Json& json, const ModelConfig& config);

}  // namespace colonnade
