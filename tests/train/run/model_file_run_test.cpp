// Runs that start from a GGUF file equal runs from the same model as a folder, and end as folders; schedules that leave
// nothing to learn.

#include "engine/device/float16.h"
#include "tests/support/gradient_check.h"
#include "tests/support/nf4_folder.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_run.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/export.h"
#include "train/model/stored_weights.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class ModelFileRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        std::string rows;
        for (int i = 0; i < 40; ++i)
            rows += fmt::format("{{\"input_ids\": [1, {0}, {1}, {0}, 2], \"labels\": [-100, {0}, {1}, {0}, 2]}}\n",
                                3 + i % 9, 3 + i % 7);
        spill(path("ids.jsonl"), rows);
        // The same model as a folder.
        fs::create_directories(path("folder"));
        fs::copy(golden_file("gguf/llama.json"), path("folder/config.json"));
        fs::copy(golden_file("gguf/llama.safetensors"), path("folder/model.safetensors"));
    }
    // Trains a few steps into a folder of the name `run`.
    void start(const std::string& model, const std::string& run,
               const std::string& settings = "max_steps: 5\nlearning_rate: 0.01\n") const {
        spill(path("c.yaml"),
              fmt::format("model_name_or_path: {}\ndatasets: [{{path: {}}}]\nmax_length: 16\nthreads: 1\n"
                          "report_to: none\nsave_strategy: no\noutput_dir: {}\n"
                          "prepared_path: {}\n{}",
                          model, path("ids.jsonl"), path(run), path("prepared"), settings));
        train(path("c.yaml"));
    }
    std::string gguf() const { return golden_file("gguf/llama.gguf"); }
};

TEST_F(ModelFileRun, AGgufFileTrainsAsItsFolderDoes) {
    start(gguf(), "from-file");
    start(path("folder"), "from-folder");
    const std::string trained = slurp(path("from-file/model.safetensors"));
    EXPECT_FALSE(trained.empty());
    EXPECT_TRUE(trained == slurp(path("from-folder/model.safetensors")));
    EXPECT_EQ(to_json(read_model_config(path("from-file"))), to_json(read_model_config(path("from-folder"))));
    EXPECT_EQ(read_json_file(path("from-file/config.json")).at("architectures"), Json{"LlamaForCausalLM"});
}

TEST_F(ModelFileRun, AFolderInFourBitsTrainsAsItsWidenedOneDoes) {
    const ModelConfig config = read_model_config(path("folder"));
    const ParameterList list(config);
    std::vector<float> weights(static_cast<size_t>(list.size()));
    const Tensor flat = tensor_of(weights, {list.size()});
    load_weights(list, config, path("folder"), flat);
    for (float& w : weights) w = float_from_bf16(bf16_from_float(w));
    fs::create_directories(path("nf4"));
    fs::create_directories(path("widened"));
    write_nf4_weights(path("nf4"), list, flat);
    write_safetensors(path("widened"), named_tensors(list, flat), DType::bf16);
    Json json = read_json_file(path("folder/config.json"));
    spill(path("widened/config.json"), json.dump());
    json["quantization_config"] = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
    spill(path("nf4/config.json"), json.dump());
    for (const char* settings : {"max_steps: 3\nlearning_rate: 0.01\n",
                                 "finetuning_type: lora\nlora_rank: 2\nexport_merged: true\nbase_quantization: nf4\n"
                                 "max_steps: 3\nlearning_rate: 0.01\n"}) {
        start(path("nf4"), "from-nf4", settings);
        start(path("widened"), "from-widened", settings);
        const std::string weights_of = path_exists(path("from-nf4/merged")) ? "/merged" : "";
        for (const char* file : {"/model.safetensors", "/config.json"}) {
            EXPECT_FALSE(slurp(path("from-nf4") + weights_of + file).empty());
            EXPECT_TRUE(slurp(path("from-nf4") + weights_of + file) == slurp(path("from-widened") + weights_of + file))
                << file << " " << settings;
        }
        for (const char* run : {"from-nf4", "from-widened"}) fs::remove_all(path(run));
    }
}

TEST_F(ModelFileRun, LoraTrainsOnAGgufFile) {
    const std::string lora =
        "finetuning_type: lora\nlora_rank: 2\nexport_merged: true\nmax_steps: 5\nlearning_rate: 0.01\n";
    start(gguf(), "from-file", lora);
    start(path("folder"), "from-folder", lora);
    EXPECT_EQ(read_adapter_config(path("from-file")).base, gguf());
    for (const char* file : {"/adapter_model.safetensors", "/merged/model.safetensors"}) {
        EXPECT_FALSE(slurp(path("from-file") + file).empty());
        EXPECT_TRUE(slurp(path("from-file") + file) == slurp(path("from-folder") + file)) << file;
    }
    start(gguf(), "again", "finetuning_type: lora\nmax_steps: 2\nadapter_name_or_path: " + path("from-file") + "\n");
}

TEST_F(ModelFileRun, AQuantisedGgufFileIsExportedAsBf16) {
    const char* file = std::getenv("COLONNADE_GGUF_MODEL");
    if (!file) GTEST_SKIP() << "no file in COLONNADE_GGUF_MODEL";
    start(file, "run", "max_steps: 1\nlearning_rate: 1e-30\nlr_scheduler_type: constant\n");
    EXPECT_EQ(StoredWeights(path("run")).export_dtype(), DType::bf16);
}

TEST_F(ModelFileRun, AWarmupIsNoLongerThanTheRun) {
    const auto refuses = [&](const std::string& settings, const std::string& message) {
        expect_error(Exit::config, message, [&] { train(config(), {output("run"), settings, "report_to=none"}); });
    };
    refuses("warmup_steps=1000", "warmup_steps 1000 + wsd_decay_steps 0 is more than the ");
    EXPECT_FALSE(fs::exists(path("run/model.safetensors")));
}

TEST_F(ModelFileRun, SaysThatNothingIsLearned) {
    const auto printed = [&](std::vector<std::string> settings) {
        settings.insert(settings.begin(), output("run"));
        settings.insert(settings.end(), {"num_train_epochs=0", "overwrite_output_dir=true"});
        return train(config(), settings);
    };
    EXPECT_NE(printed({"max_steps=1"}).find("NOTHING: the learning rate of the only step is 0 (warm-up of 1 step)"),
              std::string::npos);
    EXPECT_EQ(printed({"max_steps=1", "warmup_ratio=0"}).find("NOTHING"), std::string::npos);
    EXPECT_EQ(printed({"max_steps=2"}).find("NOTHING"), std::string::npos);
}

}  // namespace
}  // namespace colonnade
