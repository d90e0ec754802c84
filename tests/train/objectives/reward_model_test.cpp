// Reward models of transformers (tests/golden/make_reward_golden.py): read from their folders, they give the same
// scores; written again, they hold the same tensors and keys.

#include <gtest/gtest.h>

#include "data/packing/batch.h"
#include "tests/support/expect_error.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"
#include "train/folders/export.h"
#include "train/model/weight_folder.h"
#include "train/objectives/reward_objective.h"
#include "train/run/run_model.h"

namespace colonnade {
namespace {

class RewardModel : public FileTest, public testing::WithParamInterface<const char*> {
  protected:
    std::string folder() const { return golden_file("reward/") + GetParam(); }
};

TEST_P(RewardModel, GivesTheScoresOfTransformers) {
    const ModelConfig config = read_model_config(folder());
    EXPECT_TRUE(config.score_head);
    const Json golden = read_json_file(folder() + "/golden.json");
    std::vector<Sample> samples;
    for (const Json& row : golden.at("rows")) {
        samples.push_back({.sequences = {{.tokens = row.get<std::vector<int32_t>>()}}});
    }
    std::vector<const Sample*> pack;
    for (const Sample& sample : samples) pack.push_back(&sample);
    Learner learner(config, {.max_length = 64,
                             .training = false,
                             .objective = std::make_shared<RewardObjective>(RankingKind::pairwise, 0)});
    load_weights(learner.parameters(), config, folder(), learner.weights());
    const std::vector<double> scores = learner.measure({}, make_batch({pack}));
    ASSERT_EQ(scores.size(), golden.at("scores").size());
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], golden.at("scores")[i].get<double>(), 1e-5) << i;

    // The export holds all tensors that transformers wrote, and no others.
    const auto encoder = std::make_shared<const Encoder>(nullptr, EncodeOptions{});
    export_model({.folder = path("out"),
                  .config = config,
                  .parameters = learner.parameters(),
                  .weights = learner.weights(),
                  .stored = DType::f32,
                  .source_folder = "",
                  .encoder = encoder,
                  .tokenizer_source = ""});
    const SafetensorsReader theirs(folder()), ours(path("out"));
    EXPECT_EQ(ours.tensors().size(), theirs.tensors().size());
    for (const TensorInfo& info : theirs.tensors()) EXPECT_TRUE(ours.find(info.name)) << info.name;
    const Json written = read_json_file(path("out/config.json")), read = read_json_file(folder() + "/config.json");
    for (const char* key : {"architectures", "model_type", "id2label", "label2id", "pad_token_id"})
        EXPECT_EQ(written.at(key), read.at(key)) << key;
    EXPECT_TRUE(read_model_config(path("out")).score_head);
}

INSTANTIATE_TEST_SUITE_P(Families, RewardModel, testing::Values("llama", "mistral", "qwen2", "qwen3"),
                         [](const auto& test) { return std::string(test.param); });

TEST(RewardModelConfig, RefusesOtherClassifiers) {
    Json json = read_json_file(golden_file("reward/llama/config.json"));
    json["id2label"] = {{"0", "good"}, {"1", "bad"}};
    expect_error(Exit::data, "c.json: a classifier with 2 labels is not supported; a reward model has one",
                 [&] { parse_model_config(json, "c.json"); });
    json.erase("id2label");
    expect_error(Exit::data, "a classifier with 2 labels", [&] { parse_model_config(json, "c.json"); });
    json["num_labels"] = 1;
    EXPECT_TRUE(parse_model_config(json, "c.json").score_head);
    json["architectures"] = "LlamaForSequenceClassification";
    expect_error(Exit::data, "key 'architectures' should be a list of class names",
                 [&] { parse_model_config(json, "c.json"); });
}

TEST(RewardModelConfig, PadsWithATokenThatEndsNoAnswer) {
    const Encoder encoder(nullptr, EncodeOptions{});
    ModelConfig model;
    model.vocab_size = 10;
    model.eos_token_ids = {0, 2};
    for (const auto& [pad, expected] : {std::pair{5, 5}, {2, 1}, {-1, 1}}) {
        model.pad_token_id = pad;
        EXPECT_EQ(reward_pad_token(model, encoder), expected) << pad;
    }
}

}  // namespace
}  // namespace colonnade
