// config.json: both spellings of transformers, the error messages, and writing it.

#include "train/model/model_config.h"

#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

const std::string golden = golden_file("models");

/// Every field, so that two texts are equal if and only if the models are.
std::string describe(const ModelConfig& c) {
    const RopeScaling& r = c.rope_scaling;
    return fmt::format(
        "{} vocab {} hidden {} mlp {} layers {} heads {}/{} of {} max {} eps {} theta {} rope {} {} {} {} {} {} {} "
        "{} {} {} {} init {} tied {} biases {}{}{} qk_norm {} windows {} bos {} pad {} eos {}",
        name_of(c.architecture), c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers,
        c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.max_position_embeddings, c.rms_norm_eps,
        c.rope_theta, static_cast<int>(r.kind), r.factor, r.original_max_position, r.low_freq_factor,
        r.high_freq_factor, r.beta_fast, r.beta_slow, r.attention_factor, r.mscale, r.mscale_all_dim, r.truncate,
        c.initializer_range, c.tie_word_embeddings, c.qkv_bias, c.o_bias, c.mlp_bias, c.qk_norm,
        fmt::join(c.windows, ","), c.bos_token_id, c.pad_token_id, fmt::join(c.eos_token_ids, ","));
}

/// The config.json that transformers v4 writes for the same model.
Json as_v4(Json j) {
    if (!j.contains("rope_parameters")) return j;
    Json rope = j["rope_parameters"];
    j["rope_theta"] = rope["rope_theta"];
    rope.erase("rope_theta");
    j["rope_scaling"] = rope["rope_type"] == "default" ? Json(nullptr) : rope;
    j["torch_dtype"] = j["dtype"];
    for (const char* key : {"rope_parameters", "dtype", "layer_types"}) j.erase(key);
    return j;
}

/// The config.json that transformers v5 writes for the same model.
Json as_v5(Json j) {
    if (j.contains("rope_parameters")) return j;
    Json rope = j["rope_scaling"].is_null() ? Json{{"rope_type", "default"}} : j["rope_scaling"];
    if (rope.contains("type")) rope["rope_type"] = rope["type"], rope.erase("type");
    rope["rope_theta"] = j["rope_theta"];
    j["rope_parameters"] = rope;
    j["dtype"] = j["torch_dtype"];
    if (j.contains("max_window_layers")) {
        Json types = Json::array();
        for (int64_t layer = 0; layer < j["num_hidden_layers"]; ++layer)
            types.push_back(layer < j["max_window_layers"] ? "full_attention" : "sliding_attention");
        j["layer_types"] = types;
    }
    for (const char* key : {"rope_theta", "rope_scaling", "torch_dtype"}) j.erase(key);
    return j;
}

/// The golden models, which use both spellings, and shapes that they do not cover.
std::vector<Json> models() {
    std::vector<Json> all;
    for (const auto& entry : std::filesystem::directory_iterator(golden))
        all.push_back(read_json_file(entry.path().string() + "/config.json"));
    EXPECT_GE(all.size(), 7u);
    const auto find = [&](const std::string& type) {
        for (const Json& j : all)
            if (j["model_type"] == type) return j;
        throw std::runtime_error(type);
    };
    Json windowed = find("qwen2"), biased = find("llama"), yarn = find("llama");
    windowed["use_sliding_window"] = true;
    biased["attention_bias"] = biased["mlp_bias"] = true;
    biased["eos_token_id"] = {2, 5, 7};
    biased["pad_token_id"] = 0;
    yarn = as_v4(yarn);
    yarn["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0},         {"original_max_position_embeddings", 32},
                            {"mscale", 0.7},       {"mscale_all_dim", 0.5}, {"attention_factor", 1.1},
                            {"truncate", false}};
    all.insert(all.end(), {windowed, biased, yarn});
    return all;
}

TEST(ModelConfig, BothSpellingsMeanTheSame) {
    int v4 = 0, v5 = 0;
    for (const Json& j : models()) {
        const std::string expected = describe(parse_model_config(j, "as it is"));
        EXPECT_EQ(describe(parse_model_config(as_v4(j), "v4")), expected);
        EXPECT_EQ(describe(parse_model_config(as_v5(j), "v5")), expected);
        (j.contains("rope_parameters") ? v5 : v4) += 1;
    }
    EXPECT_GT(v4, 0);
    EXPECT_GT(v5, 0);
}

TEST(ModelConfig, SurvivesJsonAndBack) {
    for (const Json& j : models()) {
        const ModelConfig config = parse_model_config(j, "file");
        const Json written = parse_json(to_json(config).dump(), "written");
        EXPECT_EQ(describe(parse_model_config(written, "written")), describe(config));
        EXPECT_EQ(written["architectures"], j["architectures"]);
    }
}

TEST(ModelConfig, KnowsTheFamiliesDefaults) {
    const Json shape = {{"vocab_size", 10},
                        {"hidden_size", 32},
                        {"intermediate_size", 8},
                        {"num_hidden_layers", 4},
                        {"num_attention_heads", 2}};
    const auto parse = [&](const char* type, const Json& more = Json::object()) {
        Json j = shape;
        j["model_type"] = type;
        j.update(more);
        return parse_model_config(j, type);
    };
    EXPECT_EQ(parse("llama").head_dim, 16);
    EXPECT_EQ(parse("qwen3").head_dim, 128);
    EXPECT_TRUE(parse("qwen3").qk_norm);
    EXPECT_FALSE(parse("qwen2").qk_norm);
    EXPECT_TRUE(parse("qwen2").qkv_bias);
    EXPECT_FALSE(parse("qwen2").o_bias);
    EXPECT_FALSE(parse("mistral", {{"attention_bias", true}}).qkv_bias);
    EXPECT_TRUE(parse("llama", {{"attention_bias", true}}).o_bias);
    EXPECT_EQ(parse("llama").num_key_value_heads, 2);
    const auto windows = [&](const char* type, const Json& more) { return parse(type, more).windows; };
    using Windows = std::vector<int64_t>;
    EXPECT_EQ(windows("llama", {{"sliding_window", 9}}), (Windows{0, 0, 0, 0}));
    EXPECT_EQ(windows("mistral", {{"sliding_window", 9}}), (Windows{9, 9, 9, 9}));
    EXPECT_EQ(windows("mistral", Json::object()), (Windows{4096, 4096, 4096, 4096}));
    EXPECT_EQ(windows("mistral", {{"sliding_window", nullptr}}), (Windows{0, 0, 0, 0}));
    EXPECT_EQ(windows("qwen2", {{"sliding_window", 9}}), (Windows{0, 0, 0, 0}));
    EXPECT_EQ(windows("qwen2", {{"sliding_window", 9}, {"use_sliding_window", true}, {"max_window_layers", 3}}),
              (Windows{0, 0, 0, 9}));
    EXPECT_FALSE(parse("llama", {{"attention_dropout", 0.1}}).notices.empty());
    EXPECT_TRUE(parse("llama").notices.empty());
    const std::vector<std::string> unused = parse("llama", {{"auto_map", {{"AutoConfig", "x.Y"}}},
                                                            {"rope_interleaved", false},
                                                            {"sliding_window", 4096},
                                                            {"scale_depth", 1.4},
                                                            {"layer_types", {"full_attention", "full_attention"}}})
                                                .notices;
    ASSERT_EQ(unused.size(), 1);
    EXPECT_TRUE(unused[0].ends_with(": not used: auto_map, sliding_window, scale_depth")) << unused[0];
    for (const Json& json : models()) EXPECT_TRUE(parse_model_config(json, "golden").notices.empty()) << json;
}

// --- Errors ---

struct BadConfig {
    const char* change;  ///< merged into a good config.json; null removes a key
    const char* message;
};

const BadConfig bad_configs[] = {
    {R"({"model_type": "gpt2"})", "model_type 'gpt2' is not supported; expected one of llama, mistral, qwen2, qwen3"},
    {R"({"model_type": null})", "model_type"},
    {R"({"model_type": 3})", "key 'model_type' should be a string, found 3"},
    {R"({"quantization_config": {"bits": 4}})", "quantised"},
    {R"({"hidden_act": "gelu"})", "hidden_act 'gelu' is not supported"},
    // Missing and mistyped keys.
    {R"({"vocab_size": null})", "key 'vocab_size' is missing"},
    {R"({"hidden_size": null})", "key 'hidden_size' is missing"},
    {R"({"intermediate_size": null})", "key 'intermediate_size' is missing"},
    {R"({"num_hidden_layers": null})", "key 'num_hidden_layers' is missing"},
    {R"({"num_attention_heads": null})", "key 'num_attention_heads' is missing"},
    {R"({"hidden_size": "32"})", "key 'hidden_size' should be an integer, found \"32\""},
    {R"({"hidden_size": 32.0})", "key 'hidden_size' should be an integer, found 32.0"},
    {R"({"num_hidden_layers": [2]})", "key 'num_hidden_layers' should be an integer"},
    {R"({"rms_norm_eps": "1e-6"})", "key 'rms_norm_eps' should be a number"},
    {R"({"tie_word_embeddings": "yes"})", "key 'tie_word_embeddings' should be true or false, found \"yes\""},
    {R"({"tie_word_embeddings": 1})", "key 'tie_word_embeddings' should be true or false, found 1"},
    {R"({"eos_token_id": "</s>"})", "key 'eos_token_id' should be an integer or a list of integers"},
    {R"({"eos_token_id": [2, "x"]})", "key 'eos_token_id' should be an integer or a list of integers"},
    {R"({"eos_token_id": [2, 4294967298]})",
     "key 'eos_token_id' should be an integer or a list of integers >= -1 and < 2147483648, found [2,4294967298]"},
    {R"({"bos_token_id": 2147483648})", "key 'bos_token_id' should be an integer >= -1 and < 2147483648"},
    {R"({"pad_token_id": -2})", "key 'pad_token_id' should be an integer >= -1 and < 2147483648"},
    // Sizes.
    {R"({"vocab_size": 0})", "vocab_size should be between 1 and"},
    {R"({"hidden_size": -32})", "hidden_size should be between 1 and"},
    {R"({"vocab_size": 18446744073709551615})",
     "key 'vocab_size' should be an integer below 2^63, found 18446744073709551615"},
    {R"({"num_hidden_layers": 1000000000000})", "num_hidden_layers should be between 1 and"},
    {R"({"num_attention_heads": 0})", "num_attention_heads should be between 1 and"},
    {R"({"num_key_value_heads": 0})", "num_key_value_heads should be between 1 and"},
    {R"({"num_key_value_heads": 3})", "num_attention_heads (4) should be a multiple of num_key_value_heads (3)"},
    {R"({"head_dim": 7})", "head_dim should be even for the rotary embedding, found 7"},
    {R"({"head_dim": 512})", "head_dim should be between 1 and 256, found 512"},
    {R"({"hidden_size": 2, "head_dim": null})", "head_dim should be between 1 and 256, found 0"},
    {R"({"max_position_embeddings": 0})", "max_position_embeddings should be between 1 and"},
    {R"({"rms_norm_eps": 0})", "rms_norm_eps should be between 0 and 1"},
    // Rotary embedding.
    {R"({"rope_theta": 0})", "rope_theta should be above 1, found 0"},
    {R"({"rope_parameters": {"rope_theta": -5.0}})", "rope_theta should be above 1, found -5"},
    {R"({"rope_scaling": [8]})", "rope_scaling: expected an object, found [8]"},
    {R"({"rope_scaling": {"type": "dynamic", "factor": 2}})", "rope_scaling: rope_type 'dynamic' is not supported"},
    {R"({"rope_parameters": {"rope_type": "longrope"}})", "rope_parameters: rope_type 'longrope' is not supported"},
    {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})", "partial_rotary_factor other than 1 is not supported"},
    {R"({"rope_scaling": {"type": "linear"}})", "rope_scaling: key 'factor' is missing"},
    {R"({"rope_scaling": {"type": "linear", "factor": 0}})", "factor is 0, expected a finite number above 0"},
    {R"({"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 0}})", "factor"},
    {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
         "original_max_position_embeddings": 32}})",
     "high_freq_factor is 1, expected a finite number above 4"},
    // Windows.
    {R"({"model_type": "mistral", "sliding_window": 0})",
     "key 'sliding_window' should be an integer >= 1 and < 1073741825, found 0"},
    {R"({"model_type": "mistral", "sliding_window": 9223372036854775807})",
     "key 'sliding_window' should be an integer >= 1 and < 1073741825, found 9223372036854775807"},
    {R"({"model_type": "mistral", "sliding_window": "all"})", "key 'sliding_window' should be an integer"},
    {R"({"model_type": "qwen2", "use_sliding_window": true, "layer_types": ["full_attention"]})",
     "key 'layer_types' should be a list with an entry per layer"},
    {R"({"model_type": "qwen3", "use_sliding_window": true, "layer_types": ["full_attention", "chunked"]})",
     "layer_types[1] is \"chunked\""},
};

class BadModelConfig : public FileTest {};

TEST_F(BadModelConfig, IsAnErrorWithFileAndKey) {
    Json good = as_v4(read_json_file(golden + "/llama_tied/config.json"));
    good.erase("rope_scaling");
    const std::string file = path("config.json");
    for (const BadConfig& bad : bad_configs) {
        SCOPED_TRACE(bad.change);
        Json j = good;
        j.merge_patch(parse_json(bad.change, "change"));
        spill(file, j.dump());
        const std::string message = expect_error(Exit::data, bad.message, [&] { read_model_config(folder_); });
        EXPECT_TRUE(message.starts_with(file)) << message;
    }
    spill(file, good.dump());
    EXPECT_EQ(describe(read_model_config(folder_)), describe(read_model_config(golden + "/llama_tied")));
}

TEST_F(BadModelConfig, FileIsNamed) {
    const std::string file = path("config.json");
    expect_error(Exit::data, folder_ + ": no config.json in this folder", [&] { read_model_config(folder_); });
    for (const char* text :
         {"", "{", "[]", "\"llama\"", "{\"vocab_size\": 1, \"vocab_size\": 2}", "{\"vocab_size\": 1e999}"}) {
        SCOPED_TRACE(text);
        spill(file, text);
        expect_error(Exit::data, file, [&] { read_model_config(folder_); });
    }
    std::filesystem::remove(file);
    std::filesystem::create_directory(file);
    expect_error(Exit::data, file, [&] { read_model_config(folder_); });
}

TEST(Validate, IsAConfigErrorForAShapeOfTheTrainingConfig) {
    ModelConfig c = read_model_config(golden + "/llama_tied");
    validate(c, "model");
    c.num_key_value_heads = 3;
    expect_error(Exit::config, "model: num_attention_heads (4) should be a multiple", [&] { validate(c, "model"); });
}

}  // namespace
}  // namespace colonnade
