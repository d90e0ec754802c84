// Runs of stages dpo and rm from a user's view: the log, resuming to the bit, the reference (computed once, never mixed
// up), a reward model that is exported and loaded again.

#include <cmath>
#include <set>

#include "engine/io/hdf5.h"
#include "engine/io/safetensors.h"
#include "engine/io/sha256.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class PreferenceRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        spill(path("train.jsonl"), pair_rows(120));
        write_config(
            "per_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nnum_train_epochs: 2\nlearning_rate: 0.01\n"
            "warmup_steps: 2\nlogging_steps: 3\nval_size: 20\neval_on_start: true\n");
    }
    std::vector<std::string> arguments(const std::string& run, const std::string& stage,
                                       std::vector<std::string> more = {}) const {
        more.insert(more.begin(), {output(run), "stage=" + stage, "packing_length=96"});
        return more;
    }
    std::vector<std::string> files_of(const std::string& prefix) const {
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(path("prepared")))
            if (entry.path().filename().string().starts_with(prefix)) names.push_back(entry.path());
        return names;
    }
};

TEST_F(PreferenceRun, LearnsPairsAndLogsUnderTrlsNames) {
    const std::string printed = train(config(), arguments("run", "dpo"));
    EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
    EXPECT_EQ(printed.find("unigram"), std::string::npos) << "a figure of language models";
    EXPECT_NE(printed.find("\npairs      200, "), std::string::npos) << printed;
    const std::vector<Json> log = read_log(path("run"));
    const int64_t last = last_step(path("run"));
    EXPECT_NEAR(value_at(log, "loss", 1), std::log(2), 1e-6);
    EXPECT_NEAR(value_at(log, "rewards/margins", 1), 0, 1e-5);
    EXPECT_NEAR(value_at(log, "eval_loss", 0), std::log(2), 1e-6);
    EXPECT_GT(value_at(log, "eval_rewards/accuracies", last), 0.9);
    EXPECT_GT(value_at(log, "eval_rewards/margins", last), 0.1);
    EXPECT_LT(value_at(log, "eval_loss", last), 0.6);
    for (const std::string prefix : {"", "eval_"}) {
        const auto value = [&](const char* key) { return value_at(log, prefix + key, last); };
        EXPECT_NEAR(value("rewards/margins"), value("rewards/chosen") - value("rewards/rejected"), 1e-12);
        EXPECT_LT(value("logps/chosen"), 0);
        EXPECT_LT(value("logps/rejected"), 0);
    }
    EXPECT_EQ(read_json_file(path("run/config.json")).at("architectures")[0], "LlamaForCausalLM");
}

TEST_F(PreferenceRun, EveryLossTrains) {
    for (const char* loss : {"robust", "hinge", "ipo", "sigmoid_norm", "exo_pair", "nca_pair", "sppo_hard", "apo_zero",
                             "apo_down", "simpo", "orpo", "[sigmoid, sft]"}) {
        const std::string name = std::string("run-") + (loss[0] == '[' ? "mix" : loss);
        std::vector<std::string> more = {fmt::format("loss_type={}", loss), "max_steps=12", "num_train_epochs=0"};
        if (loss == std::string("exo_pair") || loss == std::string("robust")) more.push_back("label_smoothing=0.1");
        const std::string printed = train(config(), arguments(name, "dpo", more));
        EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
        const std::vector<Json> log = read_log(path(name));
        EXPECT_LT(value_at(log, "eval_loss", 12), value_at(log, "eval_loss", 0)) << loss;
        const bool has_nll = loss == std::string("orpo") || loss[0] == '[';
        EXPECT_EQ(log.back().contains("eval_nll_loss"), has_nll) << loss;
    }
    EXPECT_EQ(files_of("reference-").size(), 2u) << "one for each split, whatever the loss";
}

TEST_F(PreferenceRun, RewardModelLearnsAndLogs) {
    for (const char* loss : {"pairwise", "plackett_luce"}) {
        train(config(), arguments(loss, "rm",
                                  {fmt::format("reward_loss={}", loss), "center_rewards_coefficient=0.01",
                                   "num_train_epochs=16", "learning_rate=0.02"}));
        const std::vector<Json> log = read_log(path(loss));
        const int64_t last = last_step(path(loss));
        EXPECT_GT(value_at(log, "eval_accuracy", last), 0.9);
        EXPECT_GT(value_at(log, "eval_margin", last), 0.5);
        for (const std::string prefix : {"", "eval_"}) {
            const double mean = value_at(log, prefix + "mean_reward", last);
            EXPECT_LT(value_at(log, prefix + "min_reward", last), mean);
            EXPECT_GT(value_at(log, prefix + "max_reward", last), mean);
            EXPECT_LT(std::abs(mean), 3);
        }
    }
    EXPECT_TRUE(files_of("reference-").empty());
}

// --- Resume ---

TEST_F(PreferenceRun, ResumesToTheBit) {
    for (const std::string stage : {"dpo", "rm"}) {
        const std::vector<std::string> often = {"save_steps=1", "save_total_limit=0", "eval_steps=4"};
        train(config(), arguments("unbroken-" + stage, stage, often));
        const RunResult unbroken = result_of(path("unbroken-" + stage));
        const int64_t last = last_step(path("unbroken-" + stage));
        ASSERT_GE(last, 8);
        for (const int64_t stop : {int64_t{1}, last / 2, last - 1}) {
            const std::string name = fmt::format("{}-{}", stage, stop);
            fs::create_directories(path(name));
            fs::copy(checkpoint_folder(path("unbroken-" + stage), stop), checkpoint_folder(path(name), stop));
            fs::copy(path("unbroken-" + stage) + "/metrics.jsonl", path(name) + "/metrics.jsonl");
            std::vector<std::string> resuming = often;
            resuming.push_back("resume_from_checkpoint=auto");
            // If the cache is gone, the reference is computed again from the weights that the run started from.
            if (stop == 1)
                for (const std::string& file : files_of("reference-")) fs::remove(file);
            train(config(), arguments(name, stage, resuming));
            const RunResult found = result_of(path(name));
            EXPECT_TRUE(found.state == unbroken.state) << name << ": weights or moments differ";
            EXPECT_TRUE(found.model == unbroken.model) << name << ": the exported model differs";
            EXPECT_EQ(found.log, unbroken.log) << name;
        }
    }
}

TEST_F(PreferenceRun, AccumulationEqualsABatch) {
    for (const std::string stage : {"dpo", "rm"}) {
        const auto log_of = [&](const std::string& name, int batch, int accumulation) {
            train(config(), arguments(name, stage,
                                      {fmt::format("per_device_train_batch_size={}", batch),
                                       fmt::format("gradient_accumulation_steps={}", accumulation), "max_steps=6",
                                       "num_train_epochs=0", "logging_steps=1", "learning_rate=1e-3"}));
            return read_log(path(name));
        };
        const auto once = log_of(stage + "-4x1", 4, 1), four_times = log_of(stage + "-1x4", 1, 4);
        for (int64_t step = 1; step <= 6; ++step)
            for (const char* key : {"loss", "grad_norm"}) {
                const double expected = value_at(once, key, step);
                EXPECT_NEAR(value_at(four_times, key, step), expected, 2e-5 * expected) << stage << key << step;
            }
    }
}

TEST_F(PreferenceRun, EvaluationDoesNotDependOnPacking) {
    std::vector<double> losses;
    for (const char* way : {"eval_packing=true", "eval_packing=false", "per_device_eval_batch_size=5"}) {
        const std::string name = fmt::format("eval-{}", losses.size());
        train(config(),
              arguments(name, "rm", {"max_steps=2", "num_train_epochs=0", "model.initializer_range=0.3", way}));
        losses.push_back(value_at(read_log(path(name)), "eval_loss", 0));
        EXPECT_NEAR(losses.back(), losses[0], 1e-5 * losses[0]) << way;
    }
}

// --- Reference ---

TEST_F(PreferenceRun, ReferenceIsComputedOnceForAnyPacking) {
    const std::vector<std::string> brief = {"max_steps=2", "num_train_epochs=0"};
    const std::string first = train(config(), arguments("first", "dpo", brief));
    EXPECT_NE(first.find("reference train"), std::string::npos) << first;
    const std::vector<std::string> files = files_of("reference-");
    ASSERT_EQ(files.size(), 2u);
    std::vector<std::string> other_packs = brief;
    other_packs.insert(other_packs.end(), {"per_device_train_batch_size=1", "packing_strategy=sequential", "beta=0.3"});
    const std::string second = train(config(), arguments("second", "dpo", other_packs));
    EXPECT_NE(second.find("reference of 100 samples: read from"), std::string::npos) << second;
    EXPECT_NEAR(value_at(read_log(path("second")), "loss", 1), std::log(2), 1e-5);
    // Other weights have another reference.
    std::vector<std::string> other_seed = brief;
    other_seed.push_back("seed=7");
    other_seed.push_back("data_seed=42");
    train(config(), arguments("third", "dpo", other_seed));
    EXPECT_EQ(files_of("reference-").size(), 4u);
}

TEST_F(PreferenceRun, DamagedReferenceIsRefused) {
    const std::vector<std::string> brief = {"max_steps=2", "num_train_epochs=0"};
    train(config(), arguments("first", "dpo", brief));
    const std::string file = files_of("reference-train").at(0);
    const double third = Hdf5Reader(file).read_all<double>("logps").at(2);
    std::string bytes = slurp(file);
    const size_t payload = bytes.find(std::string(reinterpret_cast<const char*>(&third), sizeof third));
    ASSERT_NE(payload, std::string::npos);
    bytes[payload] = static_cast<char>(bytes[payload] ^ 4);
    spill(file, bytes);
    expect_error(Exit::data, "delete this file to compute the reference again",
                 [&] { train(config(), arguments("second", "dpo", brief)); });
}

TEST_F(PreferenceRun, AnotherReferenceIsUsedAndNeverMixedUp) {
    train(config(), arguments("other", "dpo", {"max_steps=20", "num_train_epochs=0"}));
    const std::vector<std::string> brief = {"max_steps=4", "num_train_epochs=0", "save_steps=2"};
    std::vector<std::string> with = brief;
    with.push_back("ref_model=" + path("other"));
    const std::string printed = train(config(), arguments("run", "dpo", with));
    EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
    // Compared with a model trained on the pairs, the policy starts far behind.
    EXPECT_GT(value_at(read_log(path("run")), "loss", 1), 0.75);
    EXPECT_LT(value_at(read_log(path("run")), "rewards/accuracies", 1), 0.2);
    fs::remove_all(path("run/checkpoint-4"));
    std::vector<std::string> without = brief;
    without.push_back("resume_from_checkpoint=auto");
    expect_error(Exit::config, "made with another reference",
                 [&] { train(config(), arguments("run", "dpo", without)); });
    without.push_back("ref_model=" + path("other"));
    train(config(), arguments("run", "dpo", without));
}

TEST_F(PreferenceRun, WarnsIfTheFirstLossIsNotThatOfTheReference) {
    const std::vector<std::string> brief = {"max_steps=2", "num_train_epochs=0"};
    train(config(), arguments("first", "dpo", brief));
    // A reference with the right key and wrong numbers, as a bug would write it.
    const std::string file = files_of("reference-train").at(0);
    const Hdf5Reader old(file);
    std::vector<double> logps = old.read_all<double>("logps");
    const std::string key = old.text_attribute("key");
    for (size_t i = 0; i < logps.size(); i += 2) logps[i] -= 3;
    fs::remove(file);
    Hdf5Writer changed(file);
    changed.write("logps", Tensor(logps.data(), DType::f64, {std::ssize(logps)}));
    changed.attribute("format", "colonnade-reference");
    changed.attribute("format_version", int64_t{1});
    changed.attribute("key", key);
    changed.attribute("payload_sha256",
                      sha256({reinterpret_cast<const char*>(logps.data()), logps.size() * sizeof(double)}));
    changed.close();
    const std::string printed = train(config(), arguments("second", "dpo", brief));
    EXPECT_NE(printed.find("warning: the first loss is 0.5543"), std::string::npos) << printed;
    EXPECT_NE(printed.find("but a policy equal to the reference has 0.693147"), std::string::npos) << printed;
}

// --- Reward model folders ---

TEST_F(PreferenceRun, RewardModelIsExportedAndLoadedAgain) {
    const std::vector<std::string> brief = {"max_steps=8", "num_train_epochs=0"};
    train(config(), arguments("reward", "rm", brief));
    const Json exported = read_json_file(path("reward/config.json"));
    EXPECT_EQ(exported.at("architectures"), Json::parse(R"(["LlamaForSequenceClassification"])"));
    EXPECT_EQ(exported.at("id2label").size(), 1u);
    EXPECT_GE(exported.at("pad_token_id").get<int64_t>(), 0);
    std::set<std::string> names;
    {
        const SafetensorsReader reader(path("reward"));
        for (const TensorInfo& info : reader.tensors()) names.insert(info.name);
        EXPECT_EQ(reader.find("score.weight")->shape, (std::vector<int64_t>{1, 16}));
    }
    EXPECT_FALSE(names.contains("lm_head.weight"));

    // Training continues from there: the first evaluation equals the last one of the earlier run.
    write_config("val_size: 20\neval_on_start: true\nmax_steps: 2\nlearning_rate: 1e-5\n", "further.yaml");
    std::string yaml = slurp(path("further.yaml"));
    yaml.replace(0, yaml.find("datasets:"), "model_name_or_path: " + path("reward") + "\n");
    spill(path("further.yaml"), yaml);
    train(path("further.yaml"), arguments("further", "rm"));
    const auto before = read_log(path("reward")), after = read_log(path("further"));
    for (const char* key : {"eval_loss", "eval_mean_reward", "eval_max_reward"})
        EXPECT_NEAR(value_at(after, key, 0), value_at(before, key, 8), 1e-6) << key;
    EXPECT_EQ(read_json_file(path("further/config.json")), exported);

    expect_error(Exit::config, "contains a reward model, which only stage rm trains; stage dpo needs a language model",
                 [&] { train(path("further.yaml"), arguments("no", "dpo")); });
    const Program::Result generated = colonnade::run("generate", {path("reward"), "--prompt", "x"});
    EXPECT_EQ(generated.exit, static_cast<int>(Exit::data));
    EXPECT_NE(generated.err.find("no head that could generate"), std::string::npos) << generated.err;
}

TEST_F(PreferenceRun, RewardModelStartsFromALanguageModel) {
    train(config(), arguments("base", "dpo", {"max_steps=3", "num_train_epochs=0"}));
    write_config("max_steps: 1\nlearning_rate: 1e-30\nlr_scheduler_type: constant\n", "reward.yaml");
    std::string yaml = slurp(path("reward.yaml"));
    yaml.replace(0, yaml.find("datasets:"), "model_name_or_path: " + path("base") + "\n");
    spill(path("reward.yaml"), yaml);
    train(path("reward.yaml"), arguments("reward", "rm"));
    const SafetensorsReader base(path("base")), reward(path("reward"));
    double head = 0;
    for (const TensorInfo& info : reward.tensors()) {
        std::vector<float> now(static_cast<size_t>(info.numel())), then(now.size());
        reward.read(info, Tensor(now.data(), DType::f32, {std::ssize(now)}));
        if (info.name == "score.weight") {
            for (const float w : now) head = std::max(head, static_cast<double>(std::abs(w)));
            continue;
        }
        base.read(*base.find(info.name), Tensor(then.data(), DType::f32, {std::ssize(then)}));
        EXPECT_EQ(now, then) << info.name;
    }
    EXPECT_GT(head, 0);
    EXPECT_LT(head, 0.1);
    const Json config = read_json_file(path("reward/config.json"));
    EXPECT_EQ(config.at("architectures")[0], "LlamaForSequenceClassification");
}

}  // namespace
}  // namespace colonnade
