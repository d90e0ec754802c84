#include "train/bench/model_shapes.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "train/config/nearest_name.h"

namespace colonnade {
namespace {

struct PublishedShape {
    const char* name;
    ModelShape shape;
    double llama3_rope_factor = 0;  ///< 0: no rope scaling
};

constexpr Architecture llama = Architecture::llama, qwen2 = Architecture::qwen2, qwen3 = Architecture::qwen3;

// hidden, ffn, layers, heads, kv_heads, head_dim, vocab, positions, rope_theta, rms_norm_eps, tied
constexpr PublishedShape shapes[] = {
    {"qwen2.5-0.5b", {qwen2, 896, 4864, 24, 14, 2, 64, 151936, 32768, 1e6, 1e-6, true}},
    {"qwen2.5-1.5b", {qwen2, 1536, 8960, 28, 12, 2, 128, 151936, 32768, 1e6, 1e-6, true}},
    {"qwen2.5-3b", {qwen2, 2048, 11008, 36, 16, 2, 128, 151936, 32768, 1e6, 1e-6, true}},
    {"qwen2.5-7b", {qwen2, 3584, 18944, 28, 28, 4, 128, 152064, 32768, 1e6, 1e-6, false}},
    {"llama3.2-1b", {llama, 2048, 8192, 16, 32, 8, 64, 128256, 131072, 5e5, 1e-5, true}, 32},
    {"llama3.2-3b", {llama, 3072, 8192, 28, 24, 8, 128, 128256, 131072, 5e5, 1e-5, true}, 32},
    {"llama3.1-8b", {llama, 4096, 14336, 32, 32, 8, 128, 128256, 131072, 5e5, 1e-5, false}, 8},
    {"llama2-7b", {llama, 4096, 11008, 32, 32, 32, 128, 32000, 4096, 1e4, 1e-5, false}},
    {"qwen3-0.6b", {qwen3, 1024, 3072, 28, 16, 8, 128, 151936, 40960, 1e6, 1e-6, true}},
    {"qwen3-1.7b", {qwen3, 2048, 6144, 28, 16, 8, 128, 151936, 40960, 1e6, 1e-6, true}},
    {"qwen3-4b", {qwen3, 2560, 9728, 36, 32, 8, 128, 151936, 40960, 1e6, 1e-6, true}},
    {"qwen3-8b", {qwen3, 4096, 12288, 36, 32, 8, 128, 151936, 40960, 1e6, 1e-6, false}},
};

ModelConfig model_of(const PublishedShape& published) {
    ModelConfig c = model_of(published.shape, published.name);
    if (published.llama3_rope_factor > 0) {
        c.rope_scaling.kind = RopeScaling::Kind::llama3;
        c.rope_scaling.factor = published.llama3_rope_factor;
        c.rope_scaling.original_max_position = 8192;
    }
    return c;
}

}  // namespace

std::vector<std::string> model_shape_names() {
    std::vector<std::string> names;
    for (const PublishedShape& s : shapes) names.emplace_back(s.name);
    return names;
}

ModelConfig model_shape(std::string_view name) {
    for (const PublishedShape& s : shapes)
        if (name == s.name) return model_of(s);
    std::vector<std::string> names = model_shape_names();
    std::ranges::stable_sort(names, {}, [&](const std::string& known) { return edit_distance(name, known); });
    fail(Exit::config, "--model {}: no such shape; expected one of {}", name, fmt::join(names, ", "));
}

}  // namespace colonnade
