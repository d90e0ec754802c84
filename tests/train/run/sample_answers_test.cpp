// Sample answers at evaluation: they are those of the exported model, and training is the same with and without them.

#include "train/run/sample_answers.h"

#include "tests/support/gpu_run.h"
#include "tests/support/rank_runs.h"
#include "tests/support/small_tokenizer.h"
#include "train/run/loaded_model.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// The records of samples in a log, and the log without them.
std::pair<std::vector<Json>, std::vector<Json>> divided(const std::vector<Json>& log) {
    std::pair<std::vector<Json>, std::vector<Json>> parts;
    for (const Json& line : log) (line.contains("samples") ? parts.first : parts.second).push_back(line);
    return parts;
}

std::vector<int32_t> ids_of(const std::string& text) {
    std::istringstream words(text);
    std::vector<int32_t> ids;
    for (int32_t id; words >> id;) ids.push_back(id);
    return ids;
}

/// Greedy answers of the model in a folder to the prompts of the last samples of its log are those in the log.
void expect_answers_of(const std::string& folder, size_t samples, int64_t tokens) {
    const std::vector<Json> records = divided(read_log(folder)).first;
    ASSERT_FALSE(records.empty());
    const LoadedModel model({.model = folder, .text = false});
    Generator generator(model.config(), model.weights(), {.max_length = 128, .lora = model.lora()});
    ASSERT_EQ(records.back().at("samples").size(), samples);
    for (const Json& sample : records.back().at("samples")) {
        const std::vector<int32_t> prompt = ids_of(sample.at("prompt"));
        const std::vector<int32_t> expected =
            generator.generate({.device = Device::cpu}, prompt, {.max_new_tokens = tokens});
        EXPECT_EQ(ids_of(sample.at("answer")), expected) << sample;
        EXPECT_FALSE(ids_of(sample.at("reference")).empty());
    }
}

const std::string settings = "max_steps: 12\nval_size: 20\neval_steps: 4\nlearning_rate: 0.01\nlogging_steps: 1\n";

class Answers : public RanksTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(settings);
    }
    Session session(const std::vector<std::string>& arguments) const {
        std::vector<std::string> all = {output("unused")};
        all.insert(all.end(), arguments.begin(), arguments.end());
        std::optional<Session> opened;
        quietly([&] { opened = open_session(load_config(config(), all)); });
        return *std::move(opened);
    }
};

TEST_F(Answers, ChangeNothingElse) {
    const std::string printed =
        train(config(), {output("with"), "eval_table_size=5", "eval_max_new_tokens=9", "eval_on_start=true"});
    train(config(), {output("without"), "eval_on_start=true"});
    RunResult with = result_of(path("with"));
    const auto [samples, rest] = divided(with.log);
    with.log = rest;
    expect_equal(with, result_of(path("without")), "with sample answers");
    std::vector<int64_t> steps;
    for (const Json& record : samples) steps.push_back(record.at("step"));
    EXPECT_EQ(steps, (std::vector<int64_t>{0, 4, 8, 12}));
    EXPECT_NE(samples.front(), samples.back());
    const Json& first = samples.back().at("samples")[0];
    EXPECT_EQ(first.at("row").get<std::string>().find(path("train.jsonl:")), 0u) << first;
    EXPECT_NE(
        printed.find(fmt::format("\nsample {}: {}\n    answer     {}\n    reference  {}\n",
                                 first.at("row").get<std::string>(), first.at("prompt").get<std::string>(),
                                 first.at("answer").get<std::string>(), first.at("reference").get<std::string>())),
        std::string::npos)
        << printed;
    // A resumed log has each of them once.
    train(config(), {output("with"), "eval_table_size=5", "eval_max_new_tokens=9", "max_steps=13",
                     "resume_from_checkpoint=auto"});
    EXPECT_EQ(divided(read_log(path("with"))).first.size(), 5u);
}

TEST_F(Answers, AreThoseOfTheExportedModel) {
    train(config(), {output("run"), "eval_table_size=11", "eval_max_new_tokens=20"});
    expect_answers_of(path("run"), 11, 20);
    // Adapters, beside the weights that they adapt.
    spill(config(), fmt::format("model_name_or_path: {}\nfinetuning_type: lora\nlora_rank: 4\n"
                                "datasets: [{{path: {}}}]\nmax_length: 48\npacking_length: 64\nprepared_path: {}\n"
                                "threads: 1\nreport_to: [jsonl]\n{}",
                                path("run"), path("train.jsonl"), path("prepared"), settings));
    train(config(), {output("adapters"), "eval_table_size=3", "eval_max_new_tokens=20", "learning_rate=0.05"});
    expect_answers_of(path("adapters"), 3, 20);
}

TEST_F(Answers, AreTheSameOnSeveralRanks) {
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
    hide_scarce_gpus(2);
    train_ranks(2, "without", {});
    for (const char* stage : {"zero_stage=0", "zero_stage=1"}) {
        train_ranks(2, stage, {"eval_table_size=4", "eval_max_new_tokens=20", stage});
        RunResult with = result(stage);
        const auto [samples, rest] = divided(with.log);
        with.log = rest;
        EXPECT_EQ(samples.size(), 3u);
        expect_equal(with, result("without"), stage);
        expect_answers_of(path(stage), 4, 20);
    }
}

TEST_F(Answers, BeginWhereTrainingDoes) {
    spill(path("held.jsonl"),
          "{\"input_ids\": [1, 2, 3, 4, 5, 6], \"labels\": [-100, -100, -100, 4, 5, -100]}\n"
          "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7, 8]}\n"
          "{\"input_ids\": [9, 8, 7, 6], \"labels\": [-100, 8, 7, 6]}\n");
    const std::string held = "eval_datasets=[{path: " + path("held.jsonl") + "}]";
    const std::vector<SamplePrompt> texts = choose_prompts(session({"val_size=0", held, "eval_table_size=8"}));
    ASSERT_EQ(texts.size(), 3u);
    EXPECT_EQ(texts[0].tokens, (std::vector<int32_t>{1, 2, 3}));
    EXPECT_EQ(texts[0].reference, (std::vector<int32_t>{4, 5}));
    EXPECT_EQ(texts[1].tokens, (std::vector<int32_t>{1, 2}));
    EXPECT_EQ(texts[1].reference, (std::vector<int32_t>{3, 4, 5, 6, 7, 8}));
    EXPECT_EQ(texts[2].tokens, (std::vector<int32_t>{9}));
    EXPECT_EQ(texts[2].row, path("held.jsonl:3"));
    // Spread over the data; a prompt that leaves no room for an answer is not taken.
    const std::vector<SamplePrompt> two = choose_prompts(session({"val_size=0", held, "eval_table_size=2"}));
    ASSERT_EQ(two.size(), 2u);
    EXPECT_EQ(two[1].row, path("held.jsonl:2"));
    Session tight = session({"val_size=0", held, "eval_table_size=8"});
    tight.model.max_position_embeddings = 3;
    EXPECT_EQ(choose_prompts(tight).size(), 2u);

    spill(path("pairs.jsonl"),
          "{\"prompt_input_ids\": [1, 2], \"chosen_input_ids\": [3, 4, 5], \"rejected_input_ids\": "
          "[6]}\n");
    const std::vector<SamplePrompt> pairs = choose_prompts(session(
        {"stage=dpo", "packing_length=96", "val_size=0", "eval_table_size=1",
         "datasets=[{path: " + path("pairs.jsonl") + "}]", "eval_datasets=[{path: " + path("pairs.jsonl") + "}]"}));
    ASSERT_EQ(pairs.size(), 1u);
    EXPECT_EQ(pairs[0].tokens, (std::vector<int32_t>{1, 2}));
    EXPECT_EQ(pairs[0].reference, (std::vector<int32_t>{3, 4, 5}));
}

/// The prompt of a chat is that of generation.
TEST_F(Answers, ReadChatsAsTheTemplateRendersThem) {
    fs::create_directories(path("tokenizer"));
    spill(path("tokenizer/tokenizer.json"), small_tokenizer_json({.special = {"<|im_start|>", "<|im_end|>"}}).dump());
    spill(path("chats.jsonl"),
          R"({"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d"},
              {"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}]})"
          "\n");
    std::string text = slurp(path("chats.jsonl"));
    std::erase(text, '\n');
    spill(path("chats.jsonl"), text + "\n");
    const Session s = session({"datasets=[{path: " + path("chats.jsonl") + "}]", "val_size=0", "eval_table_size=1",
                               "eval_datasets=[{path: " + path("chats.jsonl") + "}]", "model.vocab_size=0",
                               "tokenizer_name_or_path=" + path("tokenizer"), "chat_template=chatml"});
    const std::vector<SamplePrompt> prompts = choose_prompts(s);
    ASSERT_EQ(prompts.size(), 1u);
    EXPECT_EQ(prompts[0].tokens, s.encoder->encode_prompt({{"user", "a b", {}}}));
    EXPECT_EQ(s.encoder->tokenizer()->decode(prompts[0].reference).substr(0, 3), "c d");
}

TEST_F(Answers, ArePlannedAndRefused) {
    std::string plan;
    quietly([&] { plan = Trainer(open_session(load_config(config(), {output("run"), "eval_table_size=2"}))).plan(); });
    EXPECT_NE(plan.find("\n  sample answers  "), std::string::npos) << plan;
    expect_error(Exit::config, "eval_table_size: the model of stage rm scores answers and gives none", [&] {
        load_config(config(), {output("run"), "eval_table_size=2", "stage=rm"});
    });
    expect_error(Exit::config, "eval_table_size answers prompts at evaluations: give eval_datasets or val_size", [&] {
        load_config(config(), {output("run"), "eval_table_size=2", "eval_strategy=no", "val_size=0", "eval_steps=0"});
    });
}

class AnswersOnGpu : public GpuRunTest {};

TEST_F(AnswersOnGpu, ChangeNothingElse) {
    write_gpu_config({4, 2, 64}, 256,
                     "packing_length: 512\nmax_steps: 60\nlearning_rate: 0.003\nsave_steps: 20\nval_size: 50\n"
                     "eval_steps: 20\nlogging_steps: 7\n");
    train(config(), {output("with"), "eval_table_size=12", "eval_max_new_tokens=30"});
    train(config(), {output("without")});
    RunResult with = result_of(path("with"));
    const auto [samples, rest] = divided(with.log);
    with.log = rest;
    EXPECT_EQ(samples.size(), 3u);
    expect_equal(with, result_of(path("without")), "with sample answers");
    // The chain that the model has learned; logits differ in bf16, so only most tokens are compared.
    int64_t right = 0, all = 0;
    for (const Json& sample : samples.back().at("samples")) {
        int32_t before = ids_of(sample.at("prompt")).back();
        for (const int32_t id : ids_of(sample.at("answer"))) {
            right += id == (7 * before + 3) % chain_vocab;
            ++all;
            before = id;
        }
    }
    EXPECT_GT(all, 200);
    EXPECT_GT(right, all * 9 / 10);
}

}  // namespace
}  // namespace colonnade
