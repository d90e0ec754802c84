#include "train/model/gguf_export.h"

#include <algorithm>
#include <cmath>

#include "engine/device/error.h"
#include "layers/rope.h"

namespace colonnade {
namespace {

using Kind = RopeScaling::Kind;

// Keys "<architecture>.<name>".
struct ArchitecturePairs {
    std::string architecture;
    GgufPairs& pairs;

    std::string key(const char* name) const { return fmt::format("{}.{}", architecture, name); }
    void integer(const char* name, int64_t value) const { pairs.integer(key(name), value); }
    void number(const char* name, double value) const { pairs.number(key(name), value); }
    void text(const char* name, const char* value) const { pairs.text(key(name), value); }
};

void refuse_other_models(const ModelConfig& c, const std::string& where) {
    const char* architecture = gguf_architecture(c.architecture);
    const auto refuse = [&](const std::string& what) {
        fail(Exit::data, "{}: {}, which llama.cpp's architecture {} does not have; export it as a folder", where, what,
             architecture);
    };
    const bool llama = c.architecture == Architecture::llama || c.architecture == Architecture::mistral;
    if (c.score_head) refuse("the model is a reward model with score.weight");
    if (c.rope_scaling.kind == Kind::llama3 && !llama) refuse("rope_scaling is llama3");
    if (const RopeScaling& s = c.rope_scaling; s.kind == Kind::yarn) {
        if (!s.truncate) refuse("rope_scaling yarn has truncate false");
        // Keys for them exist, and llama.cpp reads them for other architectures alone.
        if (s.beta_fast != 32 || s.beta_slow != 1)
            refuse(fmt::format("rope_scaling yarn has beta_fast {} and beta_slow {} instead of 32 and 1", s.beta_fast,
                               s.beta_slow));
    }
    if (c.architecture == Architecture::qwen3 && (c.qkv_bias || c.o_bias)) refuse("attention_bias is true");
    if (c.architecture == Architecture::qwen2 && c.query_width() != c.hidden_size)
        refuse(fmt::format("{} heads of {} are not hidden_size {}", c.num_attention_heads, c.head_dim, c.hidden_size));
}

void add_rope(const ModelConfig& c, const ArchitecturePairs& a) {
    const RopeScaling& s = c.rope_scaling;
    a.integer("rope.dimension_count", c.head_dim);
    a.number("rope.freq_base", c.rope_theta);
    if (s.kind == Kind::llama3) {
        // Not of llama.cpp: the numbers from which the divisors came, for reading the file as a model to train.
        a.pairs.number("colonnade.rope_scaling.factor", s.factor);
        a.pairs.number("colonnade.rope_scaling.low_freq_factor", s.low_freq_factor);
        a.pairs.number("colonnade.rope_scaling.high_freq_factor", s.high_freq_factor);
        a.pairs.number("colonnade.rope_scaling.original_max_position_embeddings", s.original_max_position);
    }
    if (s.kind != Kind::linear && s.kind != Kind::yarn) return;
    a.text("rope.scaling.type", s.kind == Kind::linear ? "linear" : "yarn");
    a.number("rope.scaling.factor", s.factor);
    if (s.kind == Kind::linear) return;
    a.integer("rope.scaling.original_context_length", std::llround(s.original_max_position));
    // llama.cpp multiplies its own 0.1 ln(factor) + 1 by this.
    const double own = 0.1 * std::log(s.factor) + 1;
    const double factor = rope_frequencies(c.head_dim, c.rope_theta, s).attention_factor / own;
    if (std::abs(factor - 1) > 1e-6) a.number("rope.scaling.attn_factor", factor);
}

}  // namespace

const char* gguf_architecture(Architecture architecture) {
    return architecture == Architecture::mistral ? "llama" : name_of(architecture);
}

std::vector<std::string> add_model_pairs(const ModelConfig& c, const std::string& where, GgufPairs& pairs) {
    refuse_other_models(c, where);
    const ArchitecturePairs a{gguf_architecture(c.architecture), pairs};
    pairs.text("general.architecture", a.architecture);
    a.integer("block_count", c.num_hidden_layers);
    a.integer("context_length", c.max_position_embeddings);
    a.integer("embedding_length", c.hidden_size);
    a.integer("feed_forward_length", c.intermediate_size);
    a.integer("attention.head_count", c.num_attention_heads);
    a.integer("attention.head_count_kv", c.num_key_value_heads);
    a.integer("attention.key_length", c.head_dim);
    a.integer("attention.value_length", c.head_dim);
    a.number("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
    a.integer("vocab_size", c.vocab_size);
    add_rope(c, a);
    const int64_t window = c.windows.empty() ? 0 : std::ranges::max(c.windows);
    if (window == 0) return {};
    return {
        fmt::format("llama.cpp's architecture {} has no sliding window: beyond {} tokens its answers are not those of "
                    "this model",
                    a.architecture, window)};
}

std::vector<float> rope_divisors(const ModelConfig& c) {
    std::vector<float> divisors;
    if (c.rope_scaling.kind != Kind::llama3) return divisors;
    const auto plain = rope_frequencies(c.head_dim, c.rope_theta, {});
    const auto scaled = rope_frequencies(c.head_dim, c.rope_theta, c.rope_scaling);
    for (size_t i = 0; i < plain.inverse.size(); ++i)
        divisors.push_back(static_cast<float>(plain.inverse[i] / scaled.inverse[i]));
    return divisors;
}

const GgufType& gguf_type_of(const std::vector<int64_t>& shape, const GgufType& wanted) {
    if (shape.size() < 2) return *find_gguf_type("F32");
    return shape.back() % wanted.block == 0 ? wanted : *find_gguf_type("F16");
}

int64_t interleaved_heads(const ModelConfig& c, Role role) {
    if (c.architecture != Architecture::llama && c.architecture != Architecture::mistral) return 0;
    if (role == Role::q || role == Role::q_bias) return c.num_attention_heads;
    return role == Role::k || role == Role::k_bias ? c.num_key_value_heads : 0;
}

void interleave_heads(const Tensor& values, int64_t heads, int64_t head_dim) {
    const int64_t row = values.numel() / (heads * head_dim), half = head_dim / 2;
    std::vector<float> head(static_cast<size_t>(head_dim * row));
    for (float* at = values.as<float>(); heads > 0; --heads, at += head.size()) {
        std::copy_n(at, head.size(), head.data());
        for (int64_t i = 0; i < half; ++i) {
            std::copy_n(head.data() + i * row, row, at + 2 * i * row);
            std::copy_n(head.data() + (half + i) * row, row, at + (2 * i + 1) * row);
        }
    }
}

}  // namespace colonnade
