// Runs whose model and data are names of a hub.

#include "tests/support/fake_hub.h"
#include "tests/support/mpirun.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_run.h"
#include "train/folders/adapter_folder.h"
#include "train/run/local_names.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class HubRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
                                 "TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE"})
            unsetenv(name);
        setenv("HF_HOME", path("hf").c_str(), 1);
        setenv("HF_ENDPOINT", hub.server.url().c_str(), 1);
        std::string rows;
        for (int i = 0; i < 40; ++i)
            rows += fmt::format("{{\"input_ids\": [1, {0}, {1}, {0}, 2], \"labels\": [-100, {0}, {1}, {0}, 2]}}\n",
                                3 + i % 9, 3 + i % 7);
        hub.both_kinds = true;
        hub.files = {{"config.json", slurp(golden_file("gguf/llama.json"))},
                     {"model.safetensors", slurp(golden_file("gguf/llama.safetensors"))},
                     {"pytorch_model.bin", std::string(5000, 'x')},
                     {"original/consolidated.00.pth", std::string(5000, 'x')},
                     {"llama.Q8_0.gguf", slurp(golden_file("gguf/llama.gguf"))},
                     {"data/train-00000-of-00001.jsonl", rows},
                     {"data/test-00000-of-00001.jsonl", rows}};
        for (const auto& [name, content] : hub.files) {
            fs::create_directories(fs::path(path("local/" + name)).parent_path());
            spill(path("local/" + name), content);
        }
    }
    void TearDown() override {
        for (const char* name : {"HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE"}) unsetenv(name);
        RunTest::TearDown();
    }

    void write_config(const std::string& model, const std::string& data, const std::string& run,
                      const std::string& more = "") const {
        spill(path("c.yaml"),
              fmt::format("model_name_or_path: {}\ndatasets: [{{path: {}, split: train}}]\nmax_length: 16\nthreads: 1\n"
                          "report_to: none\nmax_steps: 5\nlearning_rate: 0.01\noutput_dir: {}\n{}{}",
                          model, data, path(run), more.find("save_strategy") == more.npos ? "save_strategy: no\n" : "",
                          more));
    }
    std::string trained(const std::string& model, const std::string& data, const std::string& run,
                        const std::string& more = "", const std::string& file = "model.safetensors") const {
        write_config(model, data, run, more);
        train(path("c.yaml"));
        const std::string weights = slurp(path(run + "/" + file));
        EXPECT_FALSE(weights.empty());
        return weights;
    }

    FakeHub hub;
};

TEST_F(HubRun, EqualsARunOnTheSameFiles) {
    const std::string local = trained(path("local"), path("local/data"), "from-folder");
    EXPECT_TRUE(trained("org/name", "org/name/data", "from-hub") == local);
    EXPECT_TRUE(hub.requests("pytorch_model").empty() && hub.requests("original").empty());
    EXPECT_TRUE(hub.requests("test-00000").empty()) << "only the files of the split are loaded";
    EXPECT_TRUE(hub.requests("gguf").empty());
    const std::string config = slurp(path("from-hub/config.yaml"));
    const std::string name = fmt::format("org/name@{}", hub.commit);
    EXPECT_NE(config.find("model_name_or_path: " + name + "\n"), std::string::npos) << config;
    EXPECT_NE(config.find("path: " + name + "/data\n"), std::string::npos) << config;

    setenv("HF_HUB_OFFLINE", "1", 1);
    hub.server.forget_requests();
    EXPECT_TRUE(trained("org/name", "hf://datasets/org/name/data/train-*.jsonl", "offline") == local);
    EXPECT_TRUE(trained(name, name + "/data", "pinned") == local);
    EXPECT_TRUE(hub.server.requests().empty());
}

TEST_F(HubRun, TrainingDataIsTheTrainSplitAsREADMESaysIt) {
    const std::string local = trained(path("local"), path("local/data"), "from-folder");
    const auto run_of = [&](const std::string& name) {
        const Program::Result result =
            run("colonnade", {"train", "org/name", "org/name", "max_length=16", "threads=1", "report_to=none",
                              "max_steps=5", "learning_rate=0.01", "save_strategy=no", "output_dir=" + path(name)});
        EXPECT_EQ(result.exit, 0) << result.err;
        return result.out + result.err;
    };
    EXPECT_NE(run_of("by-name").find("stage: sft, because the rows have the form tokens"), std::string::npos);
    EXPECT_TRUE(slurp(path("by-name/model.safetensors")) == local);
    EXPECT_TRUE(hub.requests("test-00000").empty()) << "only the files of the split are loaded";
    EXPECT_NE(slurp(path("by-name/config.yaml")).find("split: train"), std::string::npos);

    hub.commit = std::string(40, 'e');
    hub.files["data/test-00000-of-00001.jsonl"] += R"({"input_ids": [1, 2, 3, 4]})";
    hub.files["README.md"] =
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/test-*\n---\n";
    EXPECT_NE(run_of("by-card").find("stage: sft"), std::string::npos);
    EXPECT_FALSE(slurp(path("by-card/model.safetensors")) == local) << "the rows are those of the other file";
    EXPECT_FALSE(hub.requests("test-00000").empty());
    EXPECT_NE(slurp(path("by-card/config.yaml")).find("org/name@" + hub.commit), std::string::npos);
    setenv("HF_HUB_OFFLINE", "1", 1);
    hub.server.forget_requests();
    run_of("offline");
    EXPECT_TRUE(hub.server.requests().empty());
}

TEST_F(HubRun, TakesAGgufFileOfARepository) {
    const std::string local = trained(golden_file("gguf/llama.gguf"), path("local/data"), "from-file");
    EXPECT_TRUE(trained("org/name:Q8_0", path("local/data"), "by-part") == local);
    EXPECT_TRUE(trained("org/name/llama.Q8_0.gguf", path("local/data"), "by-name") == local);
    EXPECT_TRUE(hub.requests("safetensors").empty());
}

TEST_F(HubRun, AdaptersNameTheirBaseAndItsCommit) {
    const std::string lora = "finetuning_type: lora\nlora_rank: 2\n", file = "adapter_model.safetensors";
    const std::string local = trained(path("local"), path("local/data"), "from-folder", lora, file);
    EXPECT_TRUE(trained("org/name", path("local/data"), "from-hub", lora, file) == local);
    const Json config = read_json_file(path("from-hub/adapter_config.json"));
    EXPECT_EQ(config["base_model_name_or_path"], "org/name");
    EXPECT_EQ(config["revision"], hub.commit);
    EXPECT_EQ(read_adapter_config(path("from-hub")).base, fmt::format("org/name@{}", hub.commit));
}

TEST_F(HubRun, AResumedRunKeepsItsCommits) {
    const std::string saves = "save_strategy: steps\nsave_steps: 3\n", commit = hub.commit;
    const std::string whole = trained("org/name", "org/name/data", "run", saves);
    fs::remove_all(path("run/checkpoint-5"));
    fs::remove(path("run/model.safetensors"));
    hub.commit = std::string(40, 'f');  // the branch moves on
    hub.files["model.safetensors"].back() ^= 1;
    hub.files["data/train-00000-of-00001.jsonl"] += R"({"input_ids": [1, 2, 3, 4]})";
    EXPECT_TRUE(trained("org/name", "org/name/data", "run", saves + "resume_from_checkpoint: auto\n") == whole);
    EXPECT_TRUE(hub.requests(hub.commit).empty());
    EXPECT_FALSE(trained("org/name", "org/name/data", "other") == whole);
}

TEST_F(HubRun, OneRankDownloads) {
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun";
    write_config("org/name", "org/name/data", "run", "device: cpu\n");
    const auto result = Program(mpirun(), on_ranks(3, "train", {path("c.yaml")}), allow_ranks).wait();
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_EQ(hub.requests("/cdn/model.safetensors").size(), 1u);
    EXPECT_EQ(hub.requests("/revision/").size(), 2u) << "a look-up of the model and one of the data";
    EXPECT_EQ(count_of(result.out + result.err, "org/name is "), 1) << result.out << result.err;
}

TEST_F(HubRun, AnErrorIsOneLine) {
    write_config("org/other", "org/name/data", "run");
    const Program::Result missing = run("train", {path("c.yaml")});
    EXPECT_EQ(missing.exit, 3) << missing.err;
    EXPECT_NE(missing.err.find("train: error: org/other: neither a path of this machine nor a model on the hub"),
              std::string::npos)
        << missing.err;
    setenv("HF_HUB_OFFLINE", "1", 1);
    const Program::Result offline = run("generate", {"org/name", "-p", "x"});
    EXPECT_EQ(offline.exit, 3);
    EXPECT_NE(offline.err.find("and HF_HUB_OFFLINE is on"), std::string::npos) << offline.err;
}

TEST(LocalNames, ChooseWhatIsReadOfAModel) {
    const HubName all{.repository = "o/n"};
    using Files = std::vector<std::string>;
    const Files whole = {"config.json",
                         "model-00001-of-00002.safetensors",
                         "model-00002-of-00002.safetensors",
                         "model.safetensors.index.json",
                         "tokenizer.json",
                         "chat_template.jinja"};
    Files listed = whole;
    for (const char* other : {"README.md", "pytorch_model.bin", "consolidated.safetensors", "model.fp16.safetensors",
                              "original/params.json", "onnx/model.onnx", "sub/model.safetensors", "x.Q4_K_M.gguf"})
        listed.push_back(other);
    EXPECT_EQ(choose_model_files(listed, all, ModelFiles::whole), whole);
    EXPECT_EQ(choose_model_files(listed, all, ModelFiles::tokenizer),
              (Files{"config.json", "tokenizer.json", "chat_template.jinja"}));
    expect_error(Exit::data, "has no adapter_config.json",
                 [&] { choose_model_files(listed, all, ModelFiles::adapter); });
    const HubName sub{.repository = "o/n", .path = "sub"};
    EXPECT_EQ(choose_model_files(listed, sub, ModelFiles::whole), Files{"sub/model.safetensors"});
    expect_error(Exit::data, "pytorch_model.bin is a PyTorch pickle", [&] {
        choose_model_files({"config.json", "pytorch_model.bin"}, all, ModelFiles::whole);
    });

    const Files ggufs = {"README.md", "m-Q4_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-Q8_0.gguf"};
    const auto choose = [&](const std::string& part) {
        return choose_model_files(ggufs, {.repository = "o/n", .path = part}, ModelFiles::whole);
    };
    EXPECT_EQ(choose("q8_0"), Files{"m-Q8_0.gguf"});
    EXPECT_EQ(choose("Q4_K"), Files{"m-Q4_K.gguf"});
    EXPECT_EQ(choose("m-Q4_K_M.gguf"), Files{"m-Q4_K_M.gguf"});
    expect_error(Exit::data, "has no such GGUF file; give one file, o/n/FILE.gguf, of: README.md",
                 [&] { choose("Q5_K"); });
    expect_error(Exit::data, "means several GGUF files; give one file, o/n/FILE.gguf, of: m-Q4_K.gguf, ",
                 [&] { choose(""); });
    EXPECT_EQ(choose_model_files({"a.gguf"}, all, ModelFiles::whole), Files{"a.gguf"});
}

}  // namespace
}  // namespace colonnade
