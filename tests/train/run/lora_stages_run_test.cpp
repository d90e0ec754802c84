// Runs of stages dpo and rm with LoRA from a user's view: the reference, resuming to the bit, the folders they write.

#include "engine/io/safetensors.h"
#include "tests/support/tiny_run.h"
#include "train/folders/adapter_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class LoraStagesRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        train(config(), {output("base"), "max_steps=4", "learning_rate=0.01", "save_strategy=no"});
        fs::rename(path("train.jsonl"), path("rows.jsonl"));
        spill(path("train.jsonl"), pair_rows(120));
        spill(path("lora.yaml"),
              fmt::format("model_name_or_path: {}\nfinetuning_type: lora\nlora_rank: 4\ndatasets: [{{path: {}}}]\n"
                          "max_length: 48\npacking_length: 96\nprepared_path: {}\nthreads: 1\nreport_to: [jsonl]\n"
                          "per_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nnum_train_epochs: 2\n"
                          "learning_rate: 0.03\nlogging_steps: 1\nval_size: 20\neval_on_start: true\n",
                          path("base"), path("train.jsonl"), path("prepared")));
    }
    std::string run(const std::string& name, const std::string& stage, std::vector<std::string> more = {}) const {
        more.insert(more.begin(), {output(name), "stage=" + stage});
        return train(path("lora.yaml"), more);
    }
    static std::vector<std::string> brief(std::vector<std::string> more = {}) {
        more.insert(more.begin(), {"num_train_epochs=0", "max_steps=4"});
        return more;
    }
    int64_t last_step(const std::string& name) const { return checkpoint_steps(path(name)).back(); }
    double logged(const std::string& name, const std::string& key, int64_t step) const {
        return value_at(read_log(path(name)), key, step);
    }
    int64_t references() const {
        int64_t files = 0;
        for (const auto& entry : fs::directory_iterator(path("prepared")))
            files += entry.path().filename().string().starts_with("reference-");
        return files;
    }
};

TEST_F(LoraStagesRun, PreferencesAreLearnedAgainstTheBase) {
    const std::string printed = run("cached", "dpo", {"num_train_epochs=4"});
    EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
    EXPECT_EQ(references(), 2);
    EXPECT_NEAR(logged("cached", "loss", 1), std::log(2), 1e-6);
    EXPECT_NEAR(logged("cached", "eval_loss", 0), std::log(2), 1e-6);
    const int64_t last = last_step("cached");
    EXPECT_LT(logged("cached", "eval_loss", last), 0.6);
    EXPECT_GT(logged("cached", "eval_rewards/accuracies", last), 0.8);
    EXPECT_TRUE(is_adapter_folder(path("cached")));
    // Other fresh adapters have the same reference.
    const std::string other = run("other", "dpo", brief({"lora_rank=8", "lora_dropout=0.2", "seed=7", "data_seed=42"}));
    EXPECT_NE(other.find("reference of 100 samples: read from"), std::string::npos) << other;
    EXPECT_NEAR(logged("other", "loss", 1), std::log(2), 1e-6);
    // Adapters that continue another run have a different reference: the base with those adapters.
    run("on", "dpo", brief({"adapter_name_or_path=" + path("cached")}));
    EXPECT_EQ(references(), 4);
    EXPECT_NEAR(logged("on", "loss", 1), std::log(2), 1e-6);
    // Another base has a different reference, too.
    train(config(), {output("second-base"), "max_steps=5", "learning_rate=0.01", "save_strategy=no", "stage=sft",
                     "datasets[0].path=" + path("rows.jsonl")});
    run("second", "dpo", brief({"model_name_or_path=" + path("second-base")}));
    EXPECT_EQ(references(), 6);
    EXPECT_NEAR(logged("second", "loss", 1), std::log(2), 1e-6);
    run("against-second", "dpo", brief({"ref_model_name_or_path=" + path("second-base")}));
    EXPECT_EQ(references(), 6) << "the same reference";
    EXPECT_GT(std::abs(logged("against-second", "loss", 1) - std::log(2)), 1e-6);
}

TEST_F(LoraStagesRun, TheReferenceOfEveryBatchIsTheCachedOne) {
    run("online", "dpo", {"precompute_ref_log_probs=false"});
    EXPECT_EQ(references(), 0);
    run("cached", "dpo");
    const auto online = read_log(path("online")), cached = read_log(path("cached"));
    EXPECT_NEAR(value_at(online, "loss", 1), std::log(2), 1e-6);
    for (const Json& line : cached)
        for (const char* key : {"loss", "eval_loss", "rewards/chosen", "eval_rewards/margins"})
            if (line.contains(key)) {
                const double expected = line.at(key);
                EXPECT_NEAR(value_at(online, key, line.at("step")), expected, 1e-4 * std::max(1.0, std::abs(expected)))
                    << key << " at " << line.at("step");
            }
    expect_error(Exit::config, "made with another reference (none, now key ",
                 [&] { run("online", "dpo", {"resume_from_checkpoint=auto"}); });
}

TEST_F(LoraStagesRun, ResumesToTheBit) {
    const std::pair<std::string, std::vector<std::string>> ways[] = {
        {"dpo", {}}, {"dpo", {"precompute_ref_log_probs=false"}}, {"rm", {}}};
    for (const auto& [stage, settings] : ways) {
        std::vector<std::string> often = settings;
        often.insert(often.end(), {"save_steps=1", "save_total_limit=0", "num_train_epochs=1", "lora_dropout=0.1"});
        const std::string unbroken = fmt::format("unbroken-{}-{}", stage, settings.size());
        run(unbroken, stage, often);
        const int64_t last = last_step(unbroken);
        ASSERT_GE(last, 4);
        often.push_back("resume_from_checkpoint=auto");
        for (const int64_t stop : {int64_t{1}, last / 2}) {
            const std::string name = fmt::format("{}-{}", unbroken, stop);
            fs::create_directories(path(name));
            fs::copy(checkpoint_folder(path(unbroken), stop), checkpoint_folder(path(name), stop));
            run(name, stage, often);
            for (const char* file : {"/state-00001-of-00001.h5", "/adapter_model.safetensors"})
                EXPECT_TRUE(slurp(checkpoint_folder(path(name), last) + file) ==
                            slurp(checkpoint_folder(path(unbroken), last) + file))
                    << name << file;
        }
    }
}

TEST_F(LoraStagesRun, ARewardModelIsExportedAndLoadedAgain) {
    run("run", "rm", {"num_train_epochs=32", "export_merged=true"});
    const int64_t last = last_step("run");
    EXPECT_GT(logged("run", "eval_accuracy", last), 0.8);  // of 20 pairs
    const Json adapter = read_json_file(path("run/adapter_config.json"));
    EXPECT_EQ(adapter.at("task_type"), "SEQ_CLS");
    EXPECT_EQ(adapter.at("modules_to_save"), Json::array({"score"}));
    const AdapterConfig found = read_adapter_config(path("run"));
    EXPECT_TRUE(found.score_head && found.lora.head);
    {
        const SafetensorsReader reader(path("run/adapter_model.safetensors"));
        ASSERT_TRUE(reader.find("base_model.model.score.weight"));
        EXPECT_EQ(reader.find("base_model.model.score.weight")->shape, (std::vector<int64_t>{1, 16}));
    }
    // Both the adapters on their base and the merged model continue where the run ended.
    run("on", "rm", brief({"adapter_name_or_path=" + path("run")}));
    EXPECT_EQ(logged("on", "eval_loss", 0), logged("run", "eval_loss", last));
    EXPECT_EQ(read_json_file(path("run/merged/config.json")).at("architectures"),
              Json::array({"LlamaForSequenceClassification"}));
    run("merged", "rm", brief({"model_name_or_path=" + path("run/merged")}));
    EXPECT_NEAR(logged("merged", "eval_loss", 0), logged("run", "eval_loss", last), 1e-5);
    EXPECT_NEAR(logged("merged", "eval_mean_reward", 0), logged("run", "eval_mean_reward", last), 1e-5);
    // export writes the same from the last checkpoint.
    const std::string checkpoint = checkpoint_folder(path("run"), last);
    ASSERT_EQ(colonnade::run("export", {checkpoint, path("whole")}).exit, 0);
    EXPECT_TRUE(slurp(path("whole/model.safetensors")) == slurp(path("run/merged/model.safetensors")));
    ASSERT_EQ(colonnade::run("export", {checkpoint, path("adapters"), "--adapter"}).exit, 0);
    EXPECT_TRUE(slurp(path("adapters/adapter_model.safetensors")) == slurp(path("run/adapter_model.safetensors")));

    const auto generated = colonnade::run("generate", {path("run"), "--prompt", "x"});
    EXPECT_EQ(generated.exit, static_cast<int>(Exit::data));
    EXPECT_NE(generated.err.find("no head that could generate"), std::string::npos) << generated.err;
    expect_error(Exit::config, "contains adapters of a reward model, stage dpo continues those of a language model",
                 [&] { run("no", "dpo", {"adapter_name_or_path=" + path("run")}); });
    run("policy", "dpo", brief());
    expect_error(Exit::config, "contains adapters of a language model, stage rm continues those of a reward model",
                 [&] { run("no", "rm", {"adapter_name_or_path=" + path("policy")}); });
}

TEST_F(LoraStagesRun, AFreshScoreHeadIsThatOfFullTraining) {
    const std::vector<std::string> still = {"num_train_epochs=0", "max_steps=1", "learning_rate=1e-30",
                                            "lr_scheduler_type=constant"};
    run("lora", "rm", still);
    std::vector<std::string> full = still;
    full.insert(full.end(), {"finetuning_type=full", "lora_rank=0"});
    run("full", "rm", full);
    EXPECT_EQ(logged("lora", "eval_loss", 0), logged("full", "eval_loss", 0));
    const SafetensorsReader lora(path("lora/adapter_model.safetensors")), whole(path("full/model.safetensors"));
    std::vector<float> a(16), b(16);
    lora.read(*lora.find("base_model.model.score.weight"), Tensor(a.data(), DType::f32, {16}));
    whole.read(*whole.find("score.weight"), Tensor(b.data(), DType::f32, {16}));
    EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace colonnade
