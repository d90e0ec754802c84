#include "train/bench/model_shapes.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "train/config/nearest_name.h"

namespace colonnade {
namespace {

struct Shape {
    const char* name;
    Architecture architecture;
    int64_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab;
    bool tied;
    double rope_theta, rms_norm_eps;
    double rope_factor;  ///< of llama3 scaling; 0: none
    int64_t max_position_embeddings;
};

constexpr Architecture llama = Architecture::llama, qwen2 = Architecture::qwen2, qwen3 = Architecture::qwen3;

constexpr Shape shapes[] = {
    {"qwen2.5-0.5b", qwen2, 896, 4864, 24, 14, 2, 64, 151936, true, 1e6, 1e-6, 0, 32768},
    {"qwen2.5-1.5b", qwen2, 1536, 8960, 28, 12, 2, 128, 151936, true, 1e6, 1e-6, 0, 32768},
    {"qwen2.5-3b", qwen2, 2048, 11008, 36, 16, 2, 128, 151936, true, 1e6, 1e-6, 0, 32768},
    {"qwen2.5-7b", qwen2, 3584, 18944, 28, 28, 4, 128, 152064, false, 1e6, 1e-6, 0, 32768},
    {"llama3.2-1b", llama, 2048, 8192, 16, 32, 8, 64, 128256, true, 5e5, 1e-5, 32, 131072},
    {"llama3.2-3b", llama, 3072, 8192, 28, 24, 8, 128, 128256, true, 5e5, 1e-5, 32, 131072},
    {"llama3.1-8b", llama, 4096, 14336, 32, 32, 8, 128, 128256, false, 5e5, 1e-5, 8, 131072},
    {"llama2-7b", llama, 4096, 11008, 32, 32, 32, 128, 32000, false, 1e4, 1e-5, 0, 4096},
    {"qwen3-0.6b", qwen3, 1024, 3072, 28, 16, 8, 128, 151936, true, 1e6, 1e-6, 0, 40960},
    {"qwen3-1.7b", qwen3, 2048, 6144, 28, 16, 8, 128, 151936, true, 1e6, 1e-6, 0, 40960},
    {"qwen3-4b", qwen3, 2560, 9728, 36, 32, 8, 128, 151936, true, 1e6, 1e-6, 0, 40960},
    {"qwen3-8b", qwen3, 4096, 12288, 36, 32, 8, 128, 151936, false, 1e6, 1e-6, 0, 40960},
};

ModelConfig config_of(const Shape& s) {
    ModelConfig c = family_defaults(s.architecture);
    c.hidden_size = s.hidden;
    c.intermediate_size = s.ffn;
    c.num_hidden_layers = s.layers;
    c.num_attention_heads = s.heads;
    c.num_key_value_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.vocab_size = s.vocab;
    c.tie_word_embeddings = s.tied;
    c.rope_theta = s.rope_theta;
    c.rms_norm_eps = s.rms_norm_eps;
    if (s.rope_factor > 0) {
        c.rope_scaling.kind = RopeScaling::Kind::llama3;
        c.rope_scaling.factor = s.rope_factor;
        c.rope_scaling.original_max_position = 8192;
    }
    c.max_position_embeddings = s.max_position_embeddings;
    c.windows.assign(static_cast<size_t>(s.layers), 0);
    return c;
}

}  // namespace

std::vector<std::string> model_shape_names() {
    std::vector<std::string> names;
    for (const Shape& s : shapes) names.emplace_back(s.name);
    return names;
}

ModelConfig model_shape(std::string_view name) {
    for (const Shape& s : shapes)
        if (name == s.name) return config_of(s);
    std::vector<std::string> names = model_shape_names();
    std::ranges::stable_sort(names, {}, [&](const std::string& known) { return edit_distance(name, known); });
    fail(Exit::config, "--model {}: no such shape; expected one of {}", name, fmt::join(names, ", "));
}

}  // namespace colonnade
