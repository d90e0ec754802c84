// Settings of the rotary embedding that stand in several places of a config.json: merged as transformers does, or
// refused.

#include "train/model/rope_config.h"

#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

ModelConfig config_with(const Json& change) {
    Json json = {{"model_type", "llama"},    {"hidden_size", 64}, {"num_attention_heads", 4},
                 {"num_key_value_heads", 2}, {"head_dim", 16},    {"num_hidden_layers", 2},
                 {"intermediate_size", 96},  {"vocab_size", 100}, {"max_position_embeddings", 512}};
    json.update(change);
    return parse_model_config(json, "config.json");
}
Json from(const char* text) {
    return parse_json(text, "text");
}

TEST(RopeConfig, EqualsTransformers) {
    const Json cases = read_json_file(golden_file("rope_golden.json"));
    EXPECT_GE(cases.size(), 19);
    for (const Json& golden : cases) {
        SCOPED_TRACE(golden["change"].dump());
        const ModelConfig c = config_with(golden["change"]);
        const RopeFrequencies found = rope_frequencies(c.head_dim, c.rope_theta, c.rope_scaling);
        EXPECT_NEAR(found.attention_factor, golden["scale"].get<double>(), 1e-6);
        for (size_t i = 0; i < found.inverse.size(); ++i)
            EXPECT_NEAR(found.inverse[i] / golden["inverse"][i].get<double>(), 1, 1e-5) << i;
    }
}

TEST(RopeConfig, SaysWhichPlaceCounts) {
    const auto notices = [](const char* change) {
        return fmt::format("{}", fmt::join(config_with(from(change)).notices, "|"));
    };
    EXPECT_EQ(
        notices(R"({"rope_theta": 3e4, "rope_parameters": {"rope_type": "default", "rope_theta": 2e4}})"),
        "config.json: rope_parameters: rope_theta 20000 counts, not the 30000 at the top level, as in transformers");
    EXPECT_EQ(
        notices(R"({"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 128},
                          "original_max_position_embeddings": 64})"),
        "config.json: original_max_position_embeddings 64 counts, not the 128 of config.json: rope_scaling, as in "
        "transformers");
    EXPECT_EQ(notices(R"({"rope_scaling": {"type": "linear", "factor": 4, "beta_fast": 8, "low_freq_factor": null}})"),
              "config.json: rope_scaling: beta_fast is not used with rope_type 'linear'");
    EXPECT_EQ(notices(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4}, "rope_theta": 10000})"), "");
}

TEST(RopeConfig, RefusesWhatWouldBeLost) {
    const std::pair<const char*, const char*> cases[] = {
        {R"({"rope_parameters": {"rope_type": "yarn", "factor": 4}, "rope_scaling": {"rope_type": "linear", "factor": 4}})",
         "config.json: rope_scaling says 'linear', config.json: rope_parameters says 'yarn': keep one of them"},
        {R"({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_scaling": {"type": "linear", "factor": 4}})",
         "config.json: rope_parameters has rope_theta 500000, but transformers reads config.json: rope_scaling beside "
         "it "
         "and takes rope_theta 10000"},
        {R"({"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}})",
         "key 'full_attention' should be absent: settings by layer type are not supported"},
        {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor other than 1 is not supported"},
        {R"({"rope_parameters": [1]})", "config.json: rope_parameters: expected an object, found [1]"},
        {R"({"rope_scaling": {"type": "dynamic", "factor": 2}})", "rope_type 'dynamic' is not supported"},
        {R"({"rope_scaling": {"type": "yarn", "factor": 2}, "original_max_position_embeddings": "64"})",
         "key 'original_max_position_embeddings' should be a number"},
    };
    for (const auto& [change, message] : cases) expect_error(Exit::data, message, [&] { config_with(from(change)); });
}

}  // namespace
}  // namespace colonnade
