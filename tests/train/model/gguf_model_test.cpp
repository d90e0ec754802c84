#include "train/model/gguf_model.h"

#include "tests/support/file_test.h"
#include "tests/support/gguf_file.h"
#include "tests/support/paths.h"
#include "train/model/gguf_names.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

std::string golden(const std::string& name) {
    return golden_file("gguf/" + name);
}

template <typename Reader>
std::vector<float> values_of(const Reader& reader, const std::string& name) {
    const TensorInfo* info = reader.find(name);
    require(info, "no tensor '{}'", name);
    std::vector<float> values(static_cast<size_t>(info->numel()));
    reader.read(*info, view_of(values));
    return values;
}

TEST(GgufModel, TranslatesNames) {
    EXPECT_EQ(hugging_face_name("token_embd.weight"), "model.embed_tokens.weight");
    EXPECT_EQ(hugging_face_name("output.weight"), "lm_head.weight");
    EXPECT_EQ(hugging_face_name("blk.0.attn_q.bias"), "model.layers.0.self_attn.q_proj.bias");
    EXPECT_EQ(hugging_face_name("blk.127.ffn_down.weight"), "model.layers.127.mlp.down_proj.weight");
    for (const char* name : {"", "blk", "blk.", "blk..attn_q.weight", "blk.x.attn_q.weight", "blk.1attn_q.weight",
                             "blk.1.attn_q", "blk.1.weight", "blk.1.attn_qkv.weight", "output.scale",
                             "rope_freqs.weight", "attn_q.weight", "blk.1.output.weight"})
        EXPECT_EQ(hugging_face_name(name), std::nullopt) << name;
    for (const std::string name : {"token_embd.weight", "output_norm.weight", "blk.0.attn_q.bias",
                                   "blk.12.attn_k_norm.weight", "blk.3.ffn_norm.weight", "output.weight"})
        EXPECT_EQ(translated_name(hugging_face_name(name).value(), TensorNames::hugging_face), name);
    EXPECT_EQ(translated_name("model.layers.x.mlp.up_proj.weight", TensorNames::hugging_face), std::nullopt);
}

// The same weights in both files, in the order of llama.cpp and of transformers.
TEST(GgufModel, ReadsTheWeightsOfSafetensors) {
    for (const std::string arch : {"llama", "qwen2", "qwen3"}) {
        const GgufWeights weights(golden(arch + ".gguf"));
        const SafetensorsReader expected(golden(arch + ".safetensors"));
        EXPECT_EQ(weights.tensors().size(), expected.tensors().size());
        for (const TensorInfo& info : expected.tensors()) {
            const TensorInfo* found = weights.find(info.name);
            ASSERT_TRUE(found) << arch << " " << info.name;
            EXPECT_EQ(found->shape, info.shape) << info.name;
            EXPECT_EQ(values_of(weights, info.name), values_of(expected, info.name)) << arch << " " << info.name;
        }
    }
}

TEST(GgufModel, MakesTheConfig) {
    for (const std::string arch : {"llama", "qwen2", "qwen3"}) {
        const GgufReader file(golden(arch + ".gguf"));
        const ModelConfig found = parse_model_config(gguf_config(file), "found"),
                          expected = parse_model_config(read_json_file(golden(arch + ".json")), "expected");
        EXPECT_EQ(to_json(found), to_json(expected)) << arch;
        const ParameterList list(found);
        const GgufWeights weights(golden(arch + ".gguf"));
        for (const Parameter& p : list.all()) {
            ASSERT_TRUE(weights.find(p.name)) << p.name;
            EXPECT_EQ(weights.find(p.name)->shape, p.shape) << p.name;
        }
    }
}

// A file with one tensor, token_embd.weight [1, 32], and these pairs.
class GgufSettings : public FileTest {
  protected:
    using Pair = GgufTextPair;
    static Pair integer(const std::string& key, uint32_t value) { return gguf_pair(key, GgufKind::u32, value); }
    static Pair number(const std::string& key, float value) { return gguf_pair(key, GgufKind::f32, value); }
    static Pair text(const std::string& key, const std::string& value) { return gguf_pair(key, value); }

    // The pairs of a model of four heads of eight, with `changes` in place of pairs of the same keys or after them.
    Json config(const std::vector<Pair>& changes, const std::string& without = "") const {
        std::vector<Pair> pairs = {text("general.architecture", "llama"),
                                   integer("llama.block_count", 1),
                                   integer("llama.context_length", 64),
                                   integer("llama.embedding_length", 32),
                                   integer("llama.feed_forward_length", 8),
                                   integer("llama.attention.head_count", 4),
                                   number("llama.attention.layer_norm_rms_epsilon", 1e-6f)};
        std::erase_if(pairs, [&](const Pair& p) {
            return p.key == without || std::ranges::find(changes, p.key, &Pair::key) != changes.end();
        });
        pairs.insert(pairs.end(), changes.begin(), changes.end());
        spill(path("a.gguf"), gguf_file(pairs));
        return gguf_config(GgufReader(path("a.gguf")));
    }
    void refuses(const std::vector<Pair>& changes, const std::string& part) const {
        expect_error(Exit::data, "a.gguf: " + part, [&] { config(changes); });
    }
};

TEST_F(GgufSettings, RefusesWhatItDoesNotFollow) {
    refuses({text("general.architecture", "gemma3")}, "general.architecture 'gemma3' is not supported");
    refuses({integer("general.architecture", 1)}, "key 'general.architecture' is u32, expected a string");
    refuses({integer("llama.embedding_length", 0)}, "llama.embedding_length is 0, expected 1 to 2^31 - 1");
    refuses({integer("llama.attention.head_count", 0)}, "llama.attention.head_count is 0");
    refuses({text("llama.block_count", "1")}, "key 'llama.block_count' is string, expected an integer");
    refuses({integer("llama.expert_count", 8)}, "llama.expert_count is 8, which is not supported");
    refuses({integer("llama.attention.sliding_window", 64)}, "llama.attention.sliding_window is 64");
    refuses({number("llama.rope.scale_linear", 4)}, "llama.rope.scale_linear is 4");
    refuses({integer("llama.rope.dimension_count", 4)}, "llama.rope.dimension_count is 4, expected the size of a head");
    refuses({integer("llama.attention.value_length", 4)}, "llama.attention.value_length is 4");
    refuses({text("llama.rope.scaling.type", "longrope")}, "llama.rope.scaling.type is 'longrope'");
    refuses({text("llama.rope.scaling.type", "linear")}, "no key 'llama.rope.scaling.factor'");
    for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                            "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
        const std::string whole = std::string("llama.") + key;
        expect_error(Exit::data, "a.gguf: no key '" + whole + "'", [&] { config({}, whole); });
    }
}

TEST_F(GgufSettings, FollowsScalingAndTokens) {
    const ModelConfig plain = parse_model_config(config({}), "plain");
    EXPECT_EQ(plain.rope_theta, 10000);
    EXPECT_EQ(plain.rms_norm_eps, 1e-6);
    EXPECT_EQ(plain.num_key_value_heads, 4);
    EXPECT_EQ(plain.head_dim, 8);
    EXPECT_EQ(plain.vocab_size, 1);
    EXPECT_TRUE(plain.tie_word_embeddings);
    EXPECT_EQ(plain.rope_scaling.kind, RopeScaling::Kind::none);
    EXPECT_EQ(plain.bos_token_id, -1);

    const ModelConfig linear = parse_model_config(
        config({text("llama.rope.scaling.type", "linear"), number("llama.rope.scaling.factor", 4),
                integer("tokenizer.ggml.bos_token_id", 0), integer("tokenizer.ggml.eos_token_id", 0),
                integer("tokenizer.ggml.eot_token_id", 5), integer("tokenizer.ggml.padding_token_id", 7)}),
        "linear");
    EXPECT_EQ(linear.rope_scaling.kind, RopeScaling::Kind::linear);
    EXPECT_EQ(linear.rope_scaling.factor, 4);
    EXPECT_EQ(linear.bos_token_id, 0);
    EXPECT_EQ(linear.pad_token_id, 7);
    EXPECT_EQ(linear.eos_token_ids, (std::vector<int64_t>{0, 5}));

    const ModelConfig without = parse_model_config(
        config({integer("tokenizer.ggml.bos_token_id", UINT32_MAX), integer("tokenizer.ggml.eos_token_id", UINT32_MAX),
                integer("tokenizer.ggml.eot_token_id", 5), integer("tokenizer.ggml.padding_token_id", UINT32_MAX)}),
        "without");
    EXPECT_EQ(without.bos_token_id, -1);
    EXPECT_EQ(without.pad_token_id, -1);
    EXPECT_EQ(without.eos_token_ids, std::vector<int64_t>{5});

    const ModelConfig yarn =
        parse_model_config(config({text("llama.rope.scaling.type", "yarn"), number("llama.rope.scaling.factor", 2),
                                   integer("llama.rope.scaling.original_context_length", 32)}),
                           "yarn");
    EXPECT_EQ(yarn.rope_scaling.kind, RopeScaling::Kind::yarn);
    EXPECT_EQ(yarn.rope_scaling.original_max_position, 32);
}

// rope_freqs.weight with other numbers than Llama 3's, and q whose rows are not whole heads.
TEST_F(GgufSettings, RefusesOtherDivisorsAndHeads) {
    const std::string good = slurp(golden("llama.gguf"));
    const GgufReader reader(golden("llama.gguf"));
    std::string bad = good;
    const float divisor = 1.5f;
    bad.replace(reader.find("rope_freqs.weight")->begin, sizeof divisor, reinterpret_cast<const char*>(&divisor),
                sizeof divisor);
    spill(path("a.gguf"), bad);
    expect_error(Exit::data, "tensor 'rope_freqs.weight' holds 1.5 at 0, Llama 3's scaling by 8 has 1",
                 [&] { gguf_config(GgufReader(path("a.gguf"))); });

    bad = good;
    const std::string key = "llama.attention.head_count";
    bad.replace(bad.find(key) + key.size() + 4, 1, "\5");
    spill(path("a.gguf"), bad);
    expect_error(Exit::data, "tensor 'blk.0.attn_q.weight' is [32, 16], which is not 5 heads of an even size",
                 [&] { GgufWeights(path("a.gguf")); });
}

}  // namespace
}  // namespace colonnade
