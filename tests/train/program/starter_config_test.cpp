// init, and train without a config: what is chosen for a model and data, and that it runs.

#include "train/program/starter_config.h"

#include "tests/support/mpirun.h"
#include "tests/support/small_tokenizer.h"
#include "tests/support/tiny_run.h"
#include "train/config/keys.h"
#include "train/run/run_arguments.h"

namespace colonnade {
namespace {

class WithoutConfig : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        before_ = std::filesystem::current_path();
        std::filesystem::current_path(folder_);
        // The golden model embeds more tokens than this tokenizer has.
        Json tokenizer = small_tokenizer_json({.special = {"<|im_start|>", "<|im_end|>"}});
        std::filesystem::create_directories("text");
        spill("text/tokenizer.json", tokenizer.dump());
        spill("text/tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
        std::string chats, pairs, texts;
        for (int i = 0; i < 40; ++i) {
            chats += fmt::format(
                R"({{"messages": [{{"role": "user", "content": "q {}"}}, {{"role": "assistant", "content": "a {}"}}]}})"
                "\n",
                i, i);
            pairs += fmt::format(R"({{"prompt": "q {0}", "chosen": "yes {0}", "rejected": "no"}})"
                                 "\n",
                                 i);
            texts += fmt::format("{{\"text\": \"words {}\"}}\n", i);
        }
        spill("chats.jsonl", chats);
        spill("pairs.jsonl", pairs);
        spill("texts.jsonl", texts);
        spill("ranked.jsonl", R"({"prompt": "q", "completions": ["best", "good", "bad"]})"
                              "\n");
        spill("base.yaml",
              "model: {hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4, "
              "max_position_embeddings: 4096}\ntokenizer_name_or_path: text\ndatasets: [{path: chats.jsonl}]\n"
              "max_length: 64\nmax_steps: 1\ndevice: cpu\nthreads: 1\nreport_to: none\noutput_dir: base\n");
        const Program::Result made = run("train", {"base.yaml"});
        ASSERT_EQ(made.exit, 0) << made.err;
    }
    void TearDown() override {
        std::filesystem::current_path(before_);
        RunTest::TearDown();
    }
    static LoadedConfig loaded(const std::vector<std::string>& arguments) {
        return load_run(split_run_arguments(arguments));
    }
    std::filesystem::path before_;
};

TEST_F(WithoutConfig, TheRowsDecideTheStage) {
    const std::pair<const char*, Stage> cases[] = {{"chats.jsonl", Stage::sft},
                                                   {"texts.jsonl", Stage::sft},
                                                   {"pairs.jsonl", Stage::dpo},
                                                   {"ranked.jsonl", Stage::rm}};
    for (const auto& [data, stage] : cases) {
        const LoadedConfig run = loaded({"base", data});
        EXPECT_EQ(run.config.stage, stage) << data;
        EXPECT_EQ(run.config.output_dir, "runs/base-" + std::string(data).substr(0, std::string(data).find('.')));
        EXPECT_NE(run.notices.back().find("stage: "), std::string::npos) << run.notices.back();
    }
    EXPECT_EQ(loaded({"base", "pairs.jsonl"}).config.learning_rate, 1e-6) << "defaults follow the stage";
    EXPECT_EQ(loaded({"base", "pairs.jsonl", "--stage", "rm"}).config.stage, Stage::rm);
    EXPECT_EQ(loaded({"base", "chats.jsonl", "texts.jsonl", "max_length=7"}).config.datasets.size(), 2u);
    EXPECT_EQ(loaded({"base/", "./chats.jsonl", "output_dir=here"}).config.output_dir, "here");
}

TEST_F(WithoutConfig, WhatCouldMeanSeveralThingsIsAnError) {
    const std::pair<std::vector<std::string>, const char*> cases[] = {
        {{}, "no config and no model: expected CONFIG.yaml, or MODEL DATA"},
        {{"base"}, "base: a model without data"},
        {{"chats.jsonl"}, "chats.jsonl is a data file: expected CONFIG.yaml, or MODEL DATA, the model first"},
        {{"chats.jsonl", "base"}, "the model first"},
        {{"base", "base"}, "base is a model, as base is"},
        {{"base.yaml", "chats.jsonl"},
         "base.yaml is a config, which names model and data itself; found beside it 'chats.jsonl'"},
        {{"base", "base.yaml"}, "base.yaml is a config"},
        {{"base", "chats.jsonl", "model_name_or_path=other"}, "two models: base and model_name_or_path=other"},
        {{"base", "chats.jsonl", "datasets[0].path=other"}, "the data is given twice: chats.jsonl"},
        {{"text/tokenizer.json", "chats.jsonl"}, "text/tokenizer.json is a data file"},
        {{"base", "chats.jsonl", "learning_rat=1"}, "unknown key 'learning_rat' (did you mean 'learning_rate'?)"},
    };
    for (const auto& [arguments, message] : cases)
        expect_error(Exit::config, message, [&, &given = arguments] { loaded(given); });
    expect_error(Exit::data, "nothing: no such model on this machine, and no name on the hub, which is org/name", [&] {
        loaded({"nothing", "chats.jsonl"});
    });
    expect_error(Exit::data, "nothing.jsonl", [&] { loaded({"base", "nothing.jsonl"}); });
}

TEST_F(WithoutConfig, TrainsAndNeverOverAnOldRun) {
    const std::vector<std::string> arguments = {"train",       "base",       "chats.jsonl",
                                                "max_steps=2", "device=cpu", "threads=1"};
    const Program::Result first = run("colonnade", arguments);
    ASSERT_EQ(first.exit, 0) << first.err;
    EXPECT_NE((first.out + first.err).find("stage: sft"), std::string::npos) << first.out << first.err;
    EXPECT_TRUE(std::filesystem::exists("runs/base-chats/model.safetensors"));
    const Program::Result again = run("colonnade", arguments);
    EXPECT_EQ(again.exit, 2);
    EXPECT_NE(again.err.find("colonnade train: error: output_dir runs/base-chats already contains a run"),
              std::string::npos)
        << again.err;
    const Program::Result plan = run("colonnade", {"plan", "base", "chats.jsonl", "max_steps=2", "output_dir=other"});
    EXPECT_EQ(plan.exit, 0) << plan.err;
    EXPECT_NE(plan.out.find("2 steps"), std::string::npos) << plan.out;
    EXPECT_EQ(run("colonnade", {"prepare", "base", "pairs.jsonl"}).exit, 0);
    EXPECT_EQ(run("colonnade", {"check-packing", "base", "pairs.jsonl", "device=cpu"}).exit, 0);
    if (mpirun().empty()) return;
    const Program::Result ranks =
        Program(
            mpirun(),
            on_ranks(2, "colonnade", {"train", "base", "pairs.jsonl", "max_steps=2", "device=cpu", "output_dir=two"}),
            allow_ranks)
            .wait();
    EXPECT_EQ(ranks.exit, 0) << ranks.err;
    EXPECT_EQ(count_of(ranks.out + ranks.err, "stage: dpo, because"), 1) << ranks.out << ranks.err;
}

TEST_F(WithoutConfig, ATokenizerIsTrainedOnAFolderOrAPattern) {
    std::filesystem::create_directories("corpus/test");
    for (const char* name : {"corpus/train.jsonl", "corpus/test/other.jsonl"}) {
        std::string rows;
        for (int i = 0; i < 300; ++i)
            rows += fmt::format("{{\"text\": \"{} {}\"}}\n", i,
                                std::string(name).ends_with("other.jsonl") ? "zzzz" : "walk");
        spill(name, rows);
    }
    const auto pieces = [](const std::string& text) {
        const Program::Result made =
            run("colonnade", {"tokenizer", "train", "--text", text, "--output", "made", "--vocab-size", "276"});
        EXPECT_EQ(made.exit, 0) << made.err;
        return slurp("made.vocab");
    };
    const std::string folder = pieces("corpus");
    EXPECT_NE(folder.find("\nw\t"), std::string::npos) << folder;
    EXPECT_EQ(folder.find("\nz\t"), std::string::npos) << "of several splits, train";
    EXPECT_NE(pieces("corpus/*/*.jsonl").find("\nz\t"), std::string::npos);
}

TEST_F(WithoutConfig, InitWritesAConfigThatRuns) {
    for (const char* data : {"chats.jsonl", "pairs.jsonl"}) {
        const Program::Result wrote = run("colonnade", {"init", "base", data, "--output", "my.yaml", "--force"});
        ASSERT_EQ(wrote.exit, 0) << wrote.err;
        const Config config = load_config("my.yaml").config;
        EXPECT_EQ(config.stage, loaded({"base", data}).config.stage);
        EXPECT_EQ(config.max_length, 128) << "the shortest choice, since these rows are short";
        const Program::Result trained =
            run("colonnade", {"train", "my.yaml", "max_steps=1", "device=cpu", "threads=1"});
        EXPECT_EQ(trained.exit, 0) << trained.err;
    }
    const std::string yaml = slurp("my.yaml");
    const Program::Result refused = run("colonnade", {"init", "base", "chats.jsonl", "-o", "my.yaml"});
    EXPECT_EQ(refused.exit, 2);
    EXPECT_NE(refused.err.find("my.yaml: exists already; --force replaces it"), std::string::npos) << refused.err;
    EXPECT_EQ(slurp("my.yaml"), yaml);
    EXPECT_EQ(run("colonnade", {"init", "base", "pairs.jsonl"}).out, yaml) << "to the standard output";
}

TEST_F(WithoutConfig, InitFitsTheData) {
    std::string rows;
    for (int i = 0; i < 300; ++i) rows += fmt::format("{{\"input_ids\": [1, 2, 3]}}\n");
    rows += fmt::format("{{\"input_ids\": [{}]}}\n", fmt::join(std::vector<int>(700, 3), ","));
    spill("tokens.jsonl", rows);
    const StarterConfig starter = starter_config({.model = "base", .data = {"tokens.jsonl", "chats.jsonl"}});
    const Config config = parse_config(starter.yaml, "y").config;
    EXPECT_EQ(config.max_length, 1024) << "the least power of two that holds the longest row";
    EXPECT_EQ(config.val_size, 0.02);
    ASSERT_EQ(config.datasets.size(), 2u);
    EXPECT_EQ(config.datasets[0].path + config.datasets[0].split, "tokens.jsonl");
    EXPECT_NE(starter.yaml.find("of 341 rows the longest has 700 tokens"), std::string::npos) << starter.yaml;

    // Every key stands with what the table says about it, and what is in a comment can be put to use.
    std::string all = "finetuning_type: lora\n";
    std::istringstream lines(starter.yaml);
    for (std::string line; std::getline(lines, line);) {
        const size_t colon = line.find(": ");
        if (line.starts_with("# ") && colon != line.npos && line.find('_') < colon &&
            is_config_key(line.substr(2, colon - 2)))
            all += line.substr(2) + '\n';
        EXPECT_LE(line.size(), 80u) << line;
    }
    EXPECT_NE(all.find("lora_rank: 16\nlora_alpha: 32\nlora_target: all\nzero_stage: 1\n"), std::string::npos) << all;
    EXPECT_NO_THROW(
        parse_config(all + "model_name_or_path: m\ndatasets: [{path: d}]\noutput_dir: o\nval_size: 5\n", "y"))
        << all;
}

}  // namespace
}  // namespace colonnade
