#pragma once
// ModelFamily: what sets one family of dense decoders apart from another. model_families is the only list of families:
// the reader and the writer of config.json use it, and the training config's model.architecture takes its names from
// it. A new family needs one entry here, and a new field for anything that no other family has.

#include <array>
#include <cstdint>

namespace colonnade {

enum class Architecture { llama, mistral, qwen2, qwen3 };

/// Which layers of a family may have a sliding window, and where config.json says so.
enum class WindowRule {
    none,
    every_layer,      ///< sliding_window alone
    listed_or_upper,  ///< if use_sliding_window: the layers in layer_types, else those from max_window_layers on
};

struct ModelFamily {
    Architecture architecture;
    const char* model_type;       ///< config.json's model_type; also model.architecture of a training config
    const char* class_prefix;     ///< the "Llama" of LlamaForCausalLM and LlamaForSequenceClassification
    bool qkv_bias = false;        ///< q, k and v always have biases
    bool attention_bias = false;  ///< config.json's attention_bias gives q, k, v and o biases
    bool mlp_bias = false;        ///< config.json's mlp_bias gives the MLP biases
    bool qk_norm = false;         ///< RMSNorm on every query and key head, before the rotation
    bool tied = false;            ///< tie_word_embeddings if config.json does not say
    int64_t head_dim = 0;         ///< head_dim if config.json does not say; 0: hidden_size / num_attention_heads
    WindowRule windows = WindowRule::none;
};

inline constexpr auto model_families = std::to_array<ModelFamily>({
    {.architecture = Architecture::llama,
     .model_type = "llama",
     .class_prefix = "Llama",
     .attention_bias = true,
     .mlp_bias = true},
    {.architecture = Architecture::mistral,
     .model_type = "mistral",
     .class_prefix = "Mistral",
     .windows = WindowRule::every_layer},
    {.architecture = Architecture::qwen2,
     .model_type = "qwen2",
     .class_prefix = "Qwen2",
     .qkv_bias = true,
     .windows = WindowRule::listed_or_upper},
    {.architecture = Architecture::qwen3,
     .model_type = "qwen3",
     .class_prefix = "Qwen3",
     .attention_bias = true,
     .qk_norm = true,
     .head_dim = 128,
     .windows = WindowRule::listed_or_upper},
});

constexpr const ModelFamily& family_of(Architecture architecture) {
    for (const ModelFamily& family : model_families)
        if (family.architecture == architecture) return family;
    return model_families.front();  // not reached: every architecture has an entry
}

inline const char* name_of(Architecture architecture) {
    return family_of(architecture).model_type;
}

}  // namespace colonnade
